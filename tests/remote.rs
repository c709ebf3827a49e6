//! Servers that run elsewhere and are spoken to over HTTP: real ones, and one that does wrong on command.

mod faults;
mod server;
mod whole;

use crate::world::World;

/// Lets definitions say `--allow-private`: the servers of the tests are on this host.
pub(crate) const PRIVATE: &str = "[sandbox]\nallow_network_private = true\n";

/// Defines, publishes and grants a server behind HTTP to the group `all`.
pub(crate) fn remote(world: &World, name: &str, url: &str, options: &[&str]) {
    let mut args = vec!["mcp", "add", name, "--url", url, "--allow-private"];
    args.extend(options);
    world.cli(&args);
    world.cli(&["mcp", "publish", name]);
    world.run(&["group", "add", "all"]);
    world.cli(&["group", "grant", "all", name]);
}

/// The verdict of the newest run that ended.
fn verdict(world: &World, mcp: &str, user: Option<&str>) -> String {
    let one = world.isolate(mcp, user);
    one["last_verdict"].as_str().unwrap_or_default().to_owned()
}

//! A run whose server says that its tools have changed: they are read again, once for many such words, and with a pause
//! after each, however often it says so.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use crate::domain::limits::{TOOLS_AGAIN, TOOLS_SETTLE};

use super::super::announced::announced;
use super::super::handle::Handle;
use super::{RunArgs, start};

pub(super) async fn follow(args: RunArgs, handle: Arc<Handle>) {
    loop {
        handle.tools_told().await;
        sleep(TOOLS_SETTLE).await;
        let deadline = Instant::now() + args.deadline;
        match start::list_tools(&args, &handle, deadline).await {
            Ok(tools) => announced(&args.ctx, &args.slot, tools).await,
            Err(why) => tracing::warn!(
                isolate.id = %args.slot.id,
                mcp.name = %args.slot.mcp.name,
                "its server says that its tools have changed, and they cannot be read: {why}"
            ),
        }
        sleep(TOOLS_AGAIN).await;
    }
}

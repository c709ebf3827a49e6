//! What servers of 2026-07-28 tell of themselves, and to whom.

use serde_json::{Value, json};

use super::{Http, both};
use crate::face::{Client, listen};
use crate::kill::audit;
use crate::questions::said;
use crate::remote::{PRIVATE, remote};
use crate::stateless::Client as Stateless;
use crate::world::World;

/// What a client's `GET` stream tells.
fn messages(client: &Client) -> impl Iterator<Item = Value> + use<'_> {
    listen(client).filter_map(|line| {
        let data = line.strip_prefix("data: ")?.to_owned();
        serde_json::from_str(&data).ok()
    })
}

#[test]
fn it_is_listened_to_while_somebody_listens() {
    both(&[], |world| {
        let key = world.key("ada");
        let client = Client::new(world, "/mcp/newer", &key);
        // Whether its tools change is asked for in any case.
        let tools = json!([{"toolsListChanged": true}]);
        world.until("its tools are listened to", |_| {
            (said(&client.call(1, "listens", json!({}))) == tools).then_some(())
        });
        let mut stream = messages(&client);
        let ask = client
            .ask(2, "resources/subscribe", json!({"uri": "a:1"}))
            .json();
        assert_eq!(ask["result"], json!({}), "{ask}");
        world.until("it is asked for both", |_| {
            let listens = said(&client.call(3, "listens", json!({})));
            (listens.to_string().contains("a:1")).then_some(())
        });
        client.call(4, "touch", json!({"uris": ["a:1", "a:2"]}));
        client.call(5, "change", json!({}));
        // The subscription for both may follow another that is still read: what changes then is told twice.
        let mut told: Vec<Value> = Vec::new();
        while told.len() < 3 {
            let next = stream.next().unwrap();
            if !told.contains(&next) {
                told.push(next);
            }
        }
        assert_eq!(
            told[0],
            json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a:1"}})
        );
        assert_eq!(told[1]["method"], "notifications/resources/list_changed");
        assert_eq!(told[2]["method"], "notifications/prompts/list_changed");
        drop(stream);
        // A client of the same era, by a subscription of its own.
        let modern = Stateless::new(world, "/mcp/newer", &key);
        let wanted = json!({"notifications": {"resourceSubscriptions": ["a:3"]}});
        let mut listening = modern.stream("subscriptions/listen", wanted);
        let acknowledged = listening.next().unwrap();
        assert_eq!(
            acknowledged["params"]["notifications"],
            json!({"resourceSubscriptions": ["a:3"]})
        );
        world.until("it is asked for the third", |_| {
            let listens = said(&client.call(6, "listens", json!({})));
            (listens.to_string().contains("a:3")).then_some(())
        });
        client.call(7, "touch", json!({"uris": ["a:3"]}));
        let told = listening.next().unwrap();
        assert_eq!(told["params"]["uri"], "a:3", "{told}");
    });
}

/// What is told while one subscription follows another belongs to one of them.
#[test]
fn nothing_is_missed_while_others_begin_to_listen() {
    both(&[], |world| {
        let key = world.key("ada");
        let client = Client::new(world, "/mcp/newer", &key);
        let modern = Stateless::new(world, "/mcp/newer", &key);
        let uris: Vec<String> = (0..16).map(|one| format!("a:{one}")).collect();
        let wanted = json!({"notifications": {"resourceSubscriptions": uris}});
        let listening = modern.stream("subscriptions/listen", wanted);
        let mut told = listening.map(|message| message["params"]["uri"].clone());
        told.next().unwrap();
        let touch = |uri: &str| client.call(2, "touch", json!({"uris": [uri]}));
        // While it has both subscriptions, it tells twice.
        let mut hears = |uri: &str| assert!(told.any(|told| told == uri), "{uri} was missed");
        for two in uris.chunks(2) {
            let other = Stateless::new(world, "/mcp/newer", &key);
            let wanted = json!({"notifications": {"resourceSubscriptions": ["b:1"]}});
            let mut coming = other.stream("subscriptions/listen", wanted);
            coming.next().unwrap();
            touch("b:1");
            let heard = coming.next().unwrap();
            assert_eq!(heard["params"]["uri"], "b:1", "{heard}");
            touch(&two[0]);
            drop(coming);
            touch(&two[1]);
            hears(&two[0]);
            hears(&two[1]);
        }
    });
}

fn grown(world: &World) -> Option<Value> {
    let mut records = audit(world).into_iter();
    records.find(|one| one["event"] == "isolate.tools_changed")
}

/// Waits until its tools are listened to.
fn wait_for_tools(world: &World, client: &Client) {
    world.until("its tools are listened to", |_| {
        let listens = said(&client.call(1, "listens", json!({})));
        listens.to_string().contains("tools").then_some(())
    });
}

#[test]
fn a_change_of_its_tools_is_recorded_though_no_client_listens() {
    both(&[], |world| {
        let client = Client::new(world, "/mcp/newer", &world.key("ada"));
        wait_for_tools(world, &client);
        client.call(2, "grow", json!({}));
        let record = world.until("it is recorded", grown);
        let (policy, tools) = (&record["policy"], &record["tools"]);
        assert_eq!((policy, tools), (&json!("keep"), &json!("+grown")));
    });
}

#[test]
fn a_change_of_its_tools_is_adopted_if_the_operator_says_so() {
    let (_http, url) = Http::start(&[]);
    let world = World::with(PRIVATE);
    remote(&world, "newer", &url, &["--tool-changes", "adopt"]);
    let client = Client::new(&world, "/mcp/newer", &world.key("ada"));
    let mut heard = messages(&client);
    wait_for_tools(&world, &client);
    client.call(2, "grow", json!({}));
    let told = heard.next().unwrap();
    assert_eq!(told["method"], "notifications/tools/list_changed", "{told}");
    let tools = client.ask(3, "tools/list", json!({})).json();
    assert!(tools.to_string().contains("grown"), "{tools}");
}

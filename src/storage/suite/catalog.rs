//! Mcps, tools, subscriptions.

use super::samples::{key, keyed, mcp, name, tool, tool_name};
use crate::domain::account::{ExposedPrompt, ExposedTool, Key, Subscription};
use crate::domain::era::{Era, Spoken};
use crate::domain::limits::TOOLS_GONE_NAMED_MAX;
use crate::domain::mcp::{Defaults, Limits, Mcp, McpState, Sharing, Times, Usual};
use crate::protocol::card::Card;
use crate::protocol::handshake::Abilities;
use crate::storage::{Store, StoreError};

fn exposed(key: &Key, mcp: &Mcp, tool: &str, exposed: &str) -> ExposedTool {
    ExposedTool {
        key: key.id.clone(),
        mcp: mcp.id.clone(),
        tool: tool_name(tool),
        exposed: exposed.into(),
    }
}

pub(super) async fn mcps_come_back_as_they_went_in(store: Store) {
    let (mut demo, other) = (mcp(1, "demo"), mcp(2, "also"));
    store.create_mcp(&demo, 5).await.unwrap();
    store.create_mcp(&other, 6).await.unwrap();
    assert_eq!(store.mcp(&demo.id).await.unwrap(), demo);
    assert_eq!(store.mcp_by_name(&name("demo")).await.unwrap(), demo);
    assert_eq!(store.mcps().await.unwrap(), [other.clone(), demo.clone()]);
    let taken = store.create_mcp(&mcp(3, "demo"), 7).await.unwrap_err();
    assert!(matches!(taken, StoreError::Conflict { kind: "mcp", .. }));

    demo.program.args.push("more".into());
    demo.sharing = Sharing::Shared;
    demo.limits.pids = 7;
    demo.times.start_ms = Some(9);
    demo.description = String::new();
    // The state is not an update's business.
    let mut sneaky = demo.clone();
    sneaky.state = McpState::Published;
    store.update_mcp(&sneaky, 8).await.unwrap();
    assert_eq!(store.mcp(&demo.id).await.unwrap(), demo);

    demo.name = name("also");
    let error = store.update_mcp(&demo, 9).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: "mcp", .. }));
    let error = store.update_mcp(&mcp(9, "none"), 9).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: "mcp", .. }));
}

pub(super) async fn what_an_mcp_leaves_to_the_configuration_follows_it(store: Store) {
    let mut demo = mcp(1, "demo");
    assert_eq!(demo.as_configured, [Usual::CpuMillis, Usual::CallMs].into());
    store.create_mcp(&demo, 5).await.unwrap();
    let limits = Limits {
        memory_bytes: 1,
        cpu_millis: 33,
        ..Limits::default()
    };
    let times = Times {
        call_ms: 44,
        idle_ms: Some(55),
        ..Times::default()
    };
    // As after a restart with another configuration.
    let later = store.clone().with_defaults(Defaults { limits, times });
    let there = later.mcp(&demo.id).await.unwrap();
    assert_eq!((there.limits.cpu_millis, there.times.call_ms), (33, 44));
    assert_eq!(there.limits.memory_bytes, demo.limits.memory_bytes);
    assert_eq!(there.times.idle_ms, None, "never is its own");
    assert_eq!(there.as_configured, demo.as_configured);
    later.update_mcp(&there, 6).await.unwrap();
    assert_eq!(store.mcps().await.unwrap(), [demo.clone()]);

    // What an earlier build wrote is all its own, and stays.
    demo.as_configured.clear();
    store.update_mcp(&demo, 7).await.unwrap();
    assert_eq!(later.mcp_by_name(&demo.name).await.unwrap(), demo);
}

pub(super) async fn what_an_mcp_speaks_is_kept(store: Store) {
    let (mut demo, other) = (mcp(1, "demo"), mcp(2, "also"));
    store.create_mcp(&demo, 5).await.unwrap();
    store.create_mcp(&other, 6).await.unwrap();
    assert_eq!(store.spoken().await.unwrap(), []);
    let spoken = |era, at| Spoken {
        config: "abc".into(),
        era,
        version: "1".into(),
        at,
    };
    for (era, at) in [(Era::Modern, 7), (Era::Legacy, 8)] {
        let now = spoken(era, at);
        store.set_spoken(&demo.id, Some(&now)).await.unwrap();
        let kept = store.spoken().await.unwrap();
        assert_eq!(kept, [(demo.id.clone(), spoken(era, at))]);
    }
    // A change of the definition does not touch it: it says of which definition it is.
    demo.description = "other".into();
    store.update_mcp(&demo, 9).await.unwrap();
    assert_eq!(store.spoken().await.unwrap().len(), 1);
    let nobody = mcp(9, "none");
    store
        .set_spoken(&nobody.id, Some(&spoken(Era::Modern, 1)))
        .await
        .unwrap();
    store.set_spoken(&demo.id, None).await.unwrap();
    assert_eq!(store.spoken().await.unwrap(), []);
}

pub(super) async fn the_lifecycle_is_kept(store: Store) {
    use McpState::{Archived, Draft, Published};
    let all = [Draft, Published, Archived];
    for (n, (from, to)) in (1u8..).zip(all.into_iter().flat_map(|a| all.map(|b| (a, b)))) {
        let mut it = mcp(n, &format!("m{n}"));
        it.state = from;
        store.create_mcp(&it, 1).await.unwrap();
        let moved = store.set_mcp_state(&it.id, to, 2).await;
        let stored = store.mcp(&it.id).await.unwrap();
        if from.may_become(to) {
            assert_eq!(moved.unwrap().state, to);
            assert_eq!(stored.state, to);
        } else {
            let error = moved.unwrap_err();
            assert!(
                matches!(error, StoreError::Conflict { kind: "mcp", .. }),
                "{from:?} {to:?}"
            );
            assert_eq!(stored.state, from);
        }
    }
    let error = store
        .set_mcp_state(&mcp(99, "none").id, Published, 2)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: "mcp", .. }));
}

pub(super) async fn of_two_who_archive_one_does(store: Store) {
    for n in 0..20u8 {
        let it = mcp(n, &format!("m{n}"));
        store.create_mcp(&it, 1).await.unwrap();
        let archive = || store.set_mcp_state(&it.id, McpState::Archived, 2);
        let (one, two) = tokio::join!(archive(), archive());
        assert_ne!(one.is_ok(), two.is_ok(), "{one:?} {two:?}");
        let refused = one.err().or(two.err()).unwrap();
        assert!(matches!(refused, StoreError::Conflict { kind: "mcp", .. }));
    }
}

pub(super) async fn an_archived_mcp_gives_its_name_back(store: Store) {
    let old = mcp(1, "demo");
    store.create_mcp(&old, 5).await.unwrap();
    store
        .set_mcp_state(&old.id, McpState::Archived, 6)
        .await
        .unwrap();
    let found = store.mcp_by_name(&name("demo")).await.unwrap();
    assert_eq!(found.state, McpState::Archived);
    let error = store.update_mcp(&old, 7).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "mcp `demo` is archived and cannot change any more"
    );
    let new = mcp(2, "demo");
    store.create_mcp(&new, 4).await.unwrap();
    assert_eq!(store.mcp_by_name(&name("demo")).await.unwrap(), new);
}

pub(super) async fn tools_are_replaced_as_a_set(store: Store) {
    let (one, two) = (mcp(1, "one"), mcp(2, "two"));
    store.create_mcp(&one, 1).await.unwrap();
    store.create_mcp(&two, 1).await.unwrap();
    // The server's order, not the alphabet's.
    let first = [tool("zeta"), tool("alpha"), tool("Mid.dle-1")];
    store.replace_tools(&one.id, &first).await.unwrap();
    store
        .replace_tools(&two.id, &[tool("alpha")])
        .await
        .unwrap();
    assert_eq!(store.tools_of(&one.id).await.unwrap(), first);
    let second = [tool("alpha"), tool("new")];
    store.replace_tools(&one.id, &second).await.unwrap();
    assert_eq!(store.tools_of(&one.id).await.unwrap(), second);
    let all = store.tools().await.unwrap();
    assert_eq!(
        all,
        [
            (one.id.clone(), tool("alpha")),
            (one.id.clone(), tool("new")),
            (two.id.clone(), tool("alpha")),
        ]
    );
    store.replace_tools(&one.id, &[]).await.unwrap();
    assert!(store.tools_of(&one.id).await.unwrap().is_empty());
    let error = store
        .replace_tools(&mcp(9, "none").id, &[])
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: "mcp", .. }));
}

pub(super) async fn a_double_tool_keeps_the_old_set(store: Store) {
    let one = mcp(1, "one");
    store.create_mcp(&one, 1).await.unwrap();
    store.replace_tools(&one.id, &[tool("old")]).await.unwrap();
    let error = store
        .replace_tools(&one.id, &[tool("a"), tool("a")])
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: "tool", .. }));
    assert_eq!(store.tools_of(&one.id).await.unwrap(), [tool("old")]);
}

pub(super) async fn subscribing_twice_keeps_the_names(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let demo = mcp(1, "demo");
    store.create_mcp(&demo, 1).await.unwrap();
    let tools = [tool("echo"), tool("add")];
    store.replace_tools(&demo.id, &tools).await.unwrap();
    let names = [(tool_name("echo"), "echo".to_owned())];
    assert!(
        store
            .subscribe(&key.id, &demo.id, 10, &names)
            .await
            .unwrap()
    );
    let other = [
        (tool_name("echo"), "demo_echo".to_owned()),
        (tool_name("add"), "add".to_owned()),
    ];
    assert!(
        !store
            .subscribe(&key.id, &demo.id, 20, &other)
            .await
            .unwrap()
    );
    let views = store.views().await.unwrap();
    assert_eq!(
        views.subscriptions,
        [Subscription {
            key: key.id.clone(),
            mcp: demo.id.clone(),
            created_at: 10
        }]
    );
    assert_eq!(
        views.exposed,
        [
            exposed(&key, &demo, "add", "add"),
            exposed(&key, &demo, "echo", "echo")
        ]
    );
    let error = store
        .subscribe(&key.id, &mcp(9, "none").id, 1, &[])
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        StoreError::NotFound {
            kind: "key or mcp",
            ..
        }
    ));
}

pub(super) async fn a_taken_exposed_name_is_a_conflict(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let (one, two) = (mcp(1, "one"), mcp(2, "two"));
    for each in [&one, &two] {
        store.create_mcp(each, 1).await.unwrap();
    }
    let names = [(tool_name("echo"), "echo".to_owned())];
    store.subscribe(&key.id, &one.id, 1, &names).await.unwrap();
    let error = store
        .subscribe(&key.id, &two.id, 1, &names)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "exposed name `echo` exists already");
    // All or nothing.
    assert_eq!(store.subscriptions(Some(&key.id)).await.unwrap().len(), 1);
}

pub(super) async fn newcomers_are_exposed_and_nobody_renamed(store: Store) {
    let (ada, first) = keyed(&store, 1, "ada").await;
    let second = key(2, &ada);
    store.create_key(&second).await.unwrap();
    let demo = mcp(1, "demo");
    store.create_mcp(&demo, 1).await.unwrap();
    let tools = [tool("echo"), tool("add"), tool("new")];
    store.replace_tools(&demo.id, &tools).await.unwrap();
    let names = [(tool_name("echo"), "echo".to_owned())];
    for each in [&first, &second] {
        store
            .subscribe(&each.id, &demo.id, 1, &names)
            .await
            .unwrap();
    }
    store.expose(&[]).await.unwrap();
    store
        .expose(&[
            exposed(&first, &demo, "echo", "other"),
            exposed(&first, &demo, "add", "add"),
            exposed(&second, &demo, "add", "add"),
        ])
        .await
        .unwrap();
    let want = [
        exposed(&first, &demo, "add", "add"),
        exposed(&first, &demo, "echo", "echo"),
    ];
    assert_eq!(store.exposed_to(&first.id).await.unwrap(), want);
    assert_eq!(store.views().await.unwrap().exposed.len(), 4);
    // One bad name, and none of the batch is kept.
    let error = store
        .expose(&[
            exposed(&second, &demo, "new", "new"),
            exposed(&first, &demo, "new", "echo"),
        ])
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }));
    assert_eq!(store.views().await.unwrap().exposed.len(), 4);
    let stranger = exposed(&key(9, &ada), &demo, "x", "x");
    let error = store.expose(&[stranger]).await.unwrap_err();
    assert!(matches!(
        error,
        StoreError::NotFound {
            kind: "subscription",
            ..
        }
    ));
}

pub(super) async fn unsubscribing_forgets_the_names(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let (_, other) = keyed(&store, 2, "bob").await;
    let demo = mcp(1, "demo");
    store.create_mcp(&demo, 1).await.unwrap();
    store
        .replace_tools(&demo.id, &[tool("echo")])
        .await
        .unwrap();
    let names = [(tool_name("echo"), "echo".to_owned())];
    for each in [&key, &other] {
        store
            .subscribe(&each.id, &demo.id, 1, &names)
            .await
            .unwrap();
    }
    assert!(store.unsubscribe(&key.id, &demo.id).await.unwrap());
    assert!(!store.unsubscribe(&key.id, &demo.id).await.unwrap());
    let views = store.views().await.unwrap();
    assert_eq!(views.subscriptions.len(), 1);
    assert_eq!(views.exposed, [exposed(&other, &demo, "echo", "echo")]);
    assert!(store.subscriptions(Some(&key.id)).await.unwrap().is_empty());
}

pub(super) async fn names_of_tools_that_are_gone_are_kept_up_to_a_bound(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let demo = mcp(1, "demo");
    store.create_mcp(&demo, 1).await.unwrap();
    store.subscribe(&key.id, &demo.id, 1, &[]).await.unwrap();
    let each = TOOLS_GONE_NAMED_MAX / 2;
    for round in 0..5 {
        let tools: Vec<_> = (0..each).map(|n| tool(&format!("t{round}_{n}"))).collect();
        store.replace_tools(&demo.id, &tools).await.unwrap();
        let named: Vec<_> = tools
            .iter()
            .map(|tool| exposed(&key, &demo, tool.name.as_str(), tool.name.as_str()))
            .collect();
        store.expose(&named).await.unwrap();
    }
    let rounds = async || {
        let mut rounds: Vec<char> = store
            .exposed_to(&key.id)
            .await
            .unwrap()
            .iter()
            .map(|one| one.exposed.chars().nth(1).unwrap())
            .collect();
        rounds.sort_unstable();
        rounds.dedup();
        rounds
    };
    assert_eq!(rounds().await, ['2', '3', '4'], "the first that went");
    assert_eq!(store.exposed_to(&key.id).await.unwrap().len(), 3 * each);
    // A view costs what is there, and nothing for what was.
    assert_eq!(store.views().await.unwrap().exposed.len(), each);

    // What comes back has its name, and is the last to lose it when it goes again.
    let back: Vec<_> = (0..each).map(|n| tool(&format!("t2_{n}"))).collect();
    store.replace_tools(&demo.id, &back).await.unwrap();
    assert_eq!(store.views().await.unwrap().exposed.len(), each);
    store.replace_tools(&demo.id, &[]).await.unwrap();
    assert_eq!(rounds().await, ['2', '4']);
}

pub(super) async fn prompts_keep_the_names_they_got_first(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let (one, two) = (mcp(1, "one"), mcp(2, "two"));
    for each in [&one, &two] {
        store.create_mcp(each, 1).await.unwrap();
        store.subscribe(&key.id, &each.id, 1, &[]).await.unwrap();
    }
    let prompt = |mcp: &Mcp, prompt: &str, exposed: &str| ExposedPrompt {
        mcp: mcp.id.clone(),
        prompt: prompt.to_owned(),
        exposed: exposed.to_owned(),
    };
    store.expose_prompts(&key.id, &[]).await.unwrap();
    let first = [prompt(&one, "who am \"I\"?", "who"), prompt(&two, "b", "b")];
    store.expose_prompts(&key.id, &first).await.unwrap();
    let other = [prompt(&one, "who am \"I\"?", "other")];
    store.expose_prompts(&key.id, &other).await.unwrap();
    let names = async || store.prompts_exposed_to(&key.id).await.unwrap();
    assert_eq!(names().await, [first[1].clone(), first[0].clone()]);
    let taken = [prompt(&two, "c", "c"), prompt(&two, "d", "who")];
    let error = store.expose_prompts(&key.id, &taken).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(names().await.len(), 2, "all or nothing");
    assert!(store.unsubscribe(&key.id, &one.id).await.unwrap());
    assert_eq!(names().await, [first[1].clone()]);
    let error = store.expose_prompts(&key.id, &other).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
}

pub(super) async fn what_servers_can_do_is_the_last_that_was_said(store: Store) {
    let demo = mcp(1, "demo");
    let able = |resources| Abilities {
        resources,
        ..Abilities::default()
    };
    let none = store.set_abilities(&demo.id, "a", (able(true), None)).await;
    assert!(matches!(none, Err(StoreError::NotFound { .. })), "{none:?}");
    store.create_mcp(&demo, 1).await.unwrap();
    let card = Card {
        name: "d".to_owned(),
        instructions: "a\0b".to_owned(),
        ..Card::default()
    };
    for (config, resources, card) in [("a", true, Some(card)), ("b", false, None)] {
        let said = (able(resources), card.clone());
        let set = store.set_abilities(&demo.id, config, said).await;
        set.unwrap();
        let known = store.abilities().await.unwrap();
        let wanted = (demo.id.clone(), config.to_owned(), able(resources), card);
        assert_eq!(known, [wanted]);
    }
}

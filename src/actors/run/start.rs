//! From nothing to ready: a permit, the launch, the handshake, the tools.
//!
//! Ready means usable: the handshake is done, the capabilities are read, a round trip is
//! answered, the tools are listed. Each phase is timed in the run's record.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ractor::ActorRef;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::domain::era::Era;
use crate::domain::limits::{
    START_PERMIT_HOLD, TOOL_LIST_BYTES_MAX, TOOL_PAGES_MAX, TOOLS_PER_MCP_MAX,
};
use crate::domain::mcp::Tool;
use crate::domain::remote::Reach;
use crate::domain::verdict::{OomScope, RemoteFault, Verdict};
use crate::protocol::envelope::{self, ReplyKind};
use crate::protocol::repeated::outgoing;
use crate::protocol::{handshake, outbound};

use super::super::eras::{Bearing, Eras};
use super::super::handle::{CallError, Handle, Reply};
use super::super::launcher::{Launch, LaunchError, Launched, Scope};
use super::super::left_out::Reasons;
use super::super::plan;
use super::super::record::RunRecord;
use super::super::relimit;
use super::super::remote;
use super::super::slot::Order;
use super::greet::Begun;
use super::{RunArgs, RunMsg, Tasks, greet, listen, pumps, retold, warden};

pub(super) async fn start(
    mut args: RunArgs,
    myself: &ActorRef<RunMsg>,
    tasks: &mut Tasks,
) -> Result<(), Verdict> {
    let mut orders = args.occupant.orders.subscribe();
    let since = Instant::now();
    let permit = tokio::select! {
        biased;
        verdict = ordered(&mut orders) => return Err(verdict),
        permit = args.ctx.starts.acquire(&args.slot.key.principal) => permit,
    };
    args.occupant.record.phase("permit", since.elapsed());
    // A slow start keeps its start, not its place in the line: the hold counts from here, and
    // ends early with the start.
    let _permit = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::time::sleep(START_PERMIT_HOLD).await;
        drop(permit);
    }));
    // From here on the warden hears orders; a launch under way is not given up, so that there is
    // never a process tree that no slot knows.
    let deadline = Instant::now() + args.deadline;
    let handle = Arc::clone(&args.occupant.handle);
    // The first question is in the server's stdin when it begins; a tool call never is, that waits
    // until the run is ready.
    let (opening, greeting) = greet::first(&args, &handle)?;
    launch(&mut args, opening, myself, tasks, deadline).await?;
    if let order @ (Order::Kill(_) | Order::Stop(_)) = &*orders.borrow_and_update() {
        return Err(verdict_of(order));
    }
    shake_hands(&args, &handle, greeting, deadline).await?;
    if handle.is_modern() {
        listen::begin(&args, tasks);
    }
    let record = &args.occupant.record;
    record.learn(|facts| facts.ready_after = Some(record.started.elapsed()));
    if !args.slot.key.is_probe() {
        tasks.spawn(retold::follow(args, handle));
    }
    Ok(())
}

fn verdict_of(order: &Order) -> Verdict {
    match order {
        Order::Stop(verdict) | Order::Fault(verdict) | Order::Kill(verdict) => verdict.clone(),
        Order::Run => Verdict::Shutdown,
    }
}

/// Resolves when an order ends the start.
async fn ordered(orders: &mut tokio::sync::watch::Receiver<Order>) -> Verdict {
    let order = orders.wait_for(|order| *order != Order::Run).await;
    order.map_or(Verdict::Shutdown, |order| verdict_of(&order))
}

async fn launch(
    args: &mut RunArgs,
    opening: Bytes,
    myself: &ActorRef<RunMsg>,
    tasks: &mut Tasks,
    deadline: Instant,
) -> Result<(), Verdict> {
    // No process exists yet: what hangs here, say on a dead network disk, may be left behind.
    let planned = tokio::time::timeout_at(deadline, plan::launch(&args.ctx, &args.slot)).await;
    let (mut launch, redactor) = planned.unwrap_or_else(|_| {
        let seconds = args.deadline.as_secs_f32();
        Err(Verdict::Handshake {
            detail: format!(
                "looking up the command or making the home took longer than {seconds} s; see \
                 whether their file systems answer"
            ),
        })
    })?;
    args.occupant.record.redact_with(redactor);
    launch.opening = opening;
    let limits = launch.limits;
    let is_remote = launch.extra.remote.is_some();
    let launched = match tokio::time::timeout_at(deadline, begin(args, launch)).await {
        Ok(Ok(launched)) => launched,
        Ok(Err(LaunchError::Refused { step, detail })) => {
            return Err(Verdict::NotStarted { step, detail });
        }
        Ok(Err(LaunchError::Over(verdict))) => return Err(verdict),
        Ok(Err(LaunchError::Busy(detail))) => return Err(Verdict::Internal { detail }),
        Ok(Err(LaunchError::NoProcess)) => {
            let (scope, limit) = (OomScope::Host, None);
            return Err(Verdict::OutOfProcesses { scope, limit });
        }
        Err(_) => return Err(too_slow("the launch", args.deadline)),
    };
    let record = &args.occupant.record;
    let phase = if is_remote { "connect" } else { "spawn" };
    record.phase(phase, launched.took);
    args.ctx.metrics.started_without(&launched.degraded);
    record.learn(|facts| {
        facts.pid = launched.pid;
        facts.degraded.clone_from(&launched.degraded);
    });
    carry(args, launched, myself, tasks);
    relimit::born(&args.ctx, &args.slot, limits);
    Ok(())
}

/// Starts a process, or connects to a server that runs elsewhere.
async fn begin(args: &RunArgs, mut launch: Launch) -> Result<Launched, LaunchError> {
    let Some(mut dial) = launch.extra.remote.take() else {
        return args.ctx.launcher.launch(launch).await;
    };
    if dial.remote.reach == Reach::Private && !args.ctx.launcher.allows_private() {
        return Err(LaunchError::Refused {
            step: "network".to_owned(),
            detail:
                "its definition says --allow-private, which needs sandbox.allow_network_private \
                     = true in the configuration"
                    .to_owned(),
        });
    }
    let handle = Arc::clone(&args.occupant.handle);
    dial.unsent = Arc::new(move |id, why| {
        // Nobody comes in any more, so that the call waits for the next run.
        handle.drain();
        match why {
            Verdict::Remote {
                fault: RemoteFault::SessionLost,
                ..
            } => handle.refuse(id),
            _ => handle.unsend(id),
        }
    });
    remote::launch(dial, launch.opening, launch.on_denied).await
}

/// Hands the pipes to the pumps and the process to the warden.
fn carry(args: &mut RunArgs, launched: Launched, myself: &ActorRef<RunMsg>, tasks: &mut Tasks) {
    let Launched {
        stdin,
        stdout,
        stderr,
        exit,
        scope,
        ..
    } = launched;
    let scope: Arc<dyn Scope> = Arc::from(scope);
    args.slot.scope_of(args.occupant.epoch, &scope);
    let mut occupant = args.occupant.clone();
    occupant.scope = Some(Arc::clone(&scope));
    let (_, unused) = tokio::sync::mpsc::channel(1);
    let frames = std::mem::replace(&mut args.frames, unused);
    let line_max = args.ctx.settings.line_bytes_max;
    let writer = tasks.spawn(pumps::write(stdin, frames, occupant.clone()));
    let (read_done, stdout_ended) = tokio::sync::oneshot::channel();
    tasks.spawn(pumps::read(stdout, line_max, occupant.clone(), read_done));
    let (stderr_done, stderr_ended) = tokio::sync::oneshot::channel();
    let record = Arc::clone(&occupant.record);
    tasks.spawn(pumps::keep_stderr(stderr, record, stderr_done));
    let warden = warden::Warden {
        slot: Arc::clone(&args.slot),
        occupant,
        scope,
        writer,
        stdout_ended,
        stderr_ended,
        stop_within: args.slot.mcp.call_deadline(),
    };
    let myself = myself.clone();
    tasks.spawn(async move {
        warden.guard(exit).await;
        // An actor that is gone needs no message.
        let _ = myself.cast(RunMsg::Over);
    });
}

async fn shake_hands(
    args: &RunArgs,
    handle: &Arc<Handle>,
    greeting: greet::Greeting,
    deadline: Instant,
) -> Result<(), Verdict> {
    let record = &args.occupant.record;
    let since = Instant::now();
    let Begun {
        era,
        said,
        mut server,
    } = greet::greet(args, handle, greeting, deadline).await?;
    // It is shown to operators, and may hold what the server was given.
    for said in [&mut server.name, &mut server.version] {
        *said = record.clean_text(said);
    }
    let able = server.abilities;
    match era {
        Era::Legacy => {
            handle.post(envelope::notification("notifications/initialized", b"{}"));
            handle.set_logs(able.logging);
            if able.subscribe {
                handle.watch_again();
            }
        }
        Era::Modern => handle.speaks_modern(),
    }
    record.phase(greet::phase(era), since.elapsed());
    let since = Instant::now();
    // What an installer can do says nothing of the server.
    if !args.slot.key.is_install() {
        let slot = &args.slot;
        let (known, config) = (&args.ctx.abilities, slot.mcp.config_hash().into());
        known.learn(&args.ctx.store, &slot.key, config, able);
        Eras::learn(&args.ctx, slot, (era, said), &server.protocol_version);
        if said {
            slot.manners.show(Bearing::Speaks(era), greet::known(args));
        }
    }
    record.learn(|facts| facts.server = Some(server));
    if able.tools {
        let tools = list_tools(args, handle, deadline).await?;
        record.phase("list_tools", since.elapsed());
        args.slot.tools_seen(tools);
    } else {
        // One without sessions has answered a round trip already.
        if era == Era::Legacy {
            ask(args, handle, "ping", b"{}", deadline).await?;
            record.phase("ping", since.elapsed());
        }
        args.slot.tools_seen(Vec::new());
    }
    Ok(())
}

pub(super) async fn list_tools(
    args: &RunArgs,
    handle: &Arc<Handle>,
    deadline: Instant,
) -> Result<Vec<Tool>, Verdict> {
    let mut tools = Vec::new();
    let mut names = HashSet::new();
    let mut cursor = None;
    let mut bytes = 0;
    let mut unfit = Reasons::default();
    for _ in 0..TOOL_PAGES_MAX {
        let params = match handle.is_modern() {
            true => outbound::own_params(
                &cursor
                    .as_deref()
                    .map_or_else(String::new, |cursor| format!("\"cursor\":{cursor}")),
            ),
            false => handshake::list_params(cursor.as_deref()),
        };
        let reply = ask(args, handle, "tools/list", &params, deadline).await?;
        bytes += reply.body.len();
        if bytes > TOOL_LIST_BYTES_MAX {
            let detail = format!("its tool list is larger than {TOOL_LIST_BYTES_MAX} bytes");
            return Err(Verdict::Handshake { detail });
        }
        let page = body(&args.occupant.record, &reply)
            .and_then(handshake::read_tools)
            .map_err(|detail| Verdict::Handshake { detail })?;
        let mut left_out = Vec::new();
        // Who speaks to a server over HTTP must not offer what asks for headers wrongly.
        let speaks_http = handle.is_modern() && args.slot.mcp.program.is_remote();
        for tool in page.tools {
            if let Some(why) = outgoing::wrong(&tool.definition).filter(|_| speaks_http) {
                left_out.push(format!("`{}`: {why}", tool.name));
            } else if names.insert(tool.name.clone()) {
                tools.push(tool);
            } else {
                left_out.push(format!("`{}` is listed already", tool.name));
            }
        }
        for why in page.refused.into_iter().chain(left_out) {
            let why = args.occupant.record.clean_text(&why);
            if unfit.add(why.clone()) {
                tracing::warn!(isolate.id = %args.slot.id, mcp.name = %args.slot.mcp.name, "a tool is not offered: {why}");
            }
        }
        if tools.len() > TOOLS_PER_MCP_MAX {
            let detail = format!("it lists more than {TOOLS_PER_MCP_MAX} tools");
            return Err(Verdict::Handshake { detail });
        }
        cursor = page.next;
        if cursor.is_none() {
            // Whose list an installer has is no server's.
            if !args.slot.key.is_install() {
                let mcp = &args.slot.mcp;
                args.ctx.left_out.learn(&mcp.id, &mcp.config_hash(), unfit);
            }
            return Ok(tools);
        }
    }
    let detail = format!("its tool list does not end after {TOOL_PAGES_MAX} pages");
    Err(Verdict::Handshake { detail })
}

pub(super) async fn ask(
    args: &RunArgs,
    handle: &Arc<Handle>,
    method: &str,
    params: &[u8],
    deadline: Instant,
) -> Result<Reply, Verdict> {
    let answered = handle.ask(method, params, deadline).await;
    answered.map_err(|error| verdict_on(args, handle, method, error))
}

/// What a question without an answer says of the run.
pub(super) fn verdict_on(
    args: &RunArgs,
    handle: &Handle,
    method: &str,
    error: CallError,
) -> Verdict {
    match error {
        CallError::Ended(end) => end.verdict.clone(),
        CallError::TimedOut => too_slow(method, args.deadline),
        // Nobody cancels a question of our own.
        CallError::NotSent
        | CallError::Refused
        | CallError::Busy { .. }
        | CallError::Cancelled(_) => match handle.ended() {
            Some(end) => end.verdict.clone(),
            None => Verdict::Handshake {
                detail: format!("{method} could not be sent"),
            },
        },
    }
}

pub(super) fn too_slow(what: &str, deadline: Duration) -> Verdict {
    Verdict::Handshake {
        detail: format!("no answer to {what} within {} s", deadline.as_secs_f32()),
    }
}

pub(super) fn body<'r>(record: &RunRecord, reply: &'r Reply) -> Result<&'r [u8], String> {
    let bytes = reply.line.get(reply.body.clone()).unwrap_or_default();
    match reply.kind {
        ReplyKind::Result => Ok(bytes),
        ReplyKind::Error => {
            // Before it is cut, for half a credential is none that is known.
            let said = record.clean_text(&String::from_utf8_lossy(bytes));
            let said = handshake::cut(&said);
            Err(format!("it answered with an error: {said}"))
        }
    }
}

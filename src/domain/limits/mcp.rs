//! Bounds of sessions and of the face for MCP clients.

use std::time::Duration;

limits! {
    /// Milliseconds that a client without a session may keep what can be asked here.
    pub const MCP_DISCOVERED_MS: u32 = 60_000;
    /// The same for the list of tools; who listens is told when it changes.
    pub const MCP_TOOLS_KEPT_MS: u32 = 10_000;
    /// Subscriptions that one key's clients without sessions have open.
    pub const MCP_LISTENS_MAX: usize = 32;
    /// What is kept of a server's instructions for models.
    pub const INSTRUCTIONS_BYTES_MAX: usize = 16 << 10;
    /// What is kept of each name and version that a server gives itself.
    pub const SERVER_NAME_CHARS_MAX: usize = 128;
    /// Extensions of the protocol that one side declares; who declares more has none.
    pub const EXTENSIONS_MAX: usize = 32;
    /// All of them with their settings.
    pub const EXTENSIONS_BYTES_MAX: usize = 16 << 10;
    /// The name of a method that only an extension has.
    pub const EXTENSION_METHOD_CHARS_MAX: usize = 64;
    /// What servers said of themselves to users that are remembered, one of a user and mcp.
    pub const CARDS_MAX: usize = 10_000;
    /// A session that was not heard of for so long may make room for another one of its key.
    pub const SESSION_STALE: Duration = Duration::from_secs(15 * 60);
    /// Keys of MCP clients that are remembered as good.
    pub const BEARERS_MAX: usize = 10_000;
    /// How long a client that begins waits to hear what a server can do that has to start first.
    pub const ABILITIES_WAIT: Duration = Duration::from_secs(20);
    /// Calls of one MCP session under way.
    pub const MCP_CALLS_MAX: usize = 256;
    /// News of one call that wait for its client to read them.
    pub const MCP_NEWS_MAX: usize = 64;
    /// How often a stream without news says that it lives.
    pub const MCP_KEEP_ALIVE: Duration = Duration::from_secs(15);
    /// How long a list's changes are gathered before they are told.
    pub const LIST_SETTLE: Duration = Duration::from_millis(100);
    /// How long a client may leave a stream unread before it is closed.
    pub const MCP_UNREAD_MAX: Duration = Duration::from_secs(30);
    /// Bytes of the message with which an MCP client begins.
    pub const MCP_BEGIN_BYTES_MAX: usize = 64 << 10;
    /// Members of `_meta` of one request.
    pub const META_MEMBERS_MAX: usize = 256;
    /// Bytes of a client's id of a request.
    pub const RPC_ID_BYTES_MAX: usize = 1024;
    /// Objects and arrays within each other in one message of a client.
    pub const RPC_DEPTH_MAX: usize = 128;
    /// Bytes of the name of a method.
    pub const RPC_METHOD_BYTES_MAX: usize = 256;
    /// Questions of one run that wait for a client's answer.
    pub const QUESTIONS_OPEN_MAX: usize = 64;
    /// Bytes of one of them.
    pub const QUESTION_BYTES_MAX: usize = 4 << 20;
    /// Bytes of what a server tells of a call's progress, or logs; what is larger is not passed on.
    pub const NEWS_BYTES_MAX: usize = 256 << 10;
    /// Bytes of a client's roots that are kept for when nobody can be asked.
    pub const ROOTS_BYTES_MAX: usize = 64 << 10;
    /// How long a server that asks for them waits for somebody who can say.
    pub const ROOTS_WAIT: Duration = Duration::from_secs(2);
    /// How long a client may answer a question when its call is over.
    pub const MCP_LATE_ANSWER: Duration = Duration::from_secs(30);
    /// Messages of one batch.
    pub const MCP_BATCH_MAX: usize = 32;
    /// Bytes of all its answers.
    pub const MCP_BATCH_BYTES_MAX: usize = 32 << 20;
    /// What servers told of themselves and a stream has not passed on yet.
    pub const EARS_UNHEARD_MAX: usize = 64;
    /// Resources of one isolate that are subscribed to.
    pub const WATCHED_MAX: usize = 1024;
    /// Subscriptions to one of them.
    pub const WATCHERS_MAX: usize = 1024;
    /// Bytes of the URI of one.
    pub const WATCHED_URI_BYTES_MAX: usize = 8 << 10;
    /// How long a new run may take to be subscribed to one that the run before it was.
    pub const WATCH_AGAIN_WAIT: Duration = Duration::from_secs(10);
    /// Resources that one subscription of a client without a session names.
    pub const MCP_LISTEN_URIS_MAX: usize = 64;
    /// How long an answer waits for the turn of its call to come back.
    pub const TURN_BACK_MAX: Duration = Duration::from_secs(5);
    /// How long a server that asks faster than it reads is not read.
    pub const CATCH_UP_MAX: Duration = Duration::from_secs(1);
    /// How long a call whose question is out still has what its server asks.
    pub const TURN_GRACE: Duration = Duration::from_millis(250);
    /// Tools and methods of one isolate that are remembered to ask.
    pub const ASKERS_MAX: usize = 256;
    /// How long a server has to take another level of logging.
    pub const LOG_LEVEL_WAIT: Duration = Duration::from_secs(5);
    /// Questions that wait for one session's client.
    pub const MCP_QUESTIONS_MAX: usize = 16;
    /// How long questions of one server are gathered before they are passed on together.
    pub const QUESTIONS_GATHER: Duration = Duration::from_millis(15);
    /// Calls that wait for the answers of one key's clients without sessions.
    pub const MCP_HELD_KEY_MAX: usize = 32;
    /// The same of all keys.
    pub const MCP_HELD_MAX: usize = 4096;
    /// How often one call asks its client at the most.
    pub const MCP_ROUNDS_MAX: u16 = 64;
    /// After how long an answer that is not there begins as a stream that can be taken up again.
    pub const MCP_PRIME_AFTER: Duration = Duration::from_millis(50);
    /// How long a client is told to wait before it takes a stream up again.
    pub const MCP_RETRY: Duration = Duration::from_secs(1);
    /// How long what a client has not read is kept for it to come back.
    pub const MCP_KEPT: Duration = Duration::from_secs(300);
    /// The same of what is about no request, for which servers are kept from resting.
    pub const MCP_LISTEN_KEPT: Duration = Duration::from_secs(30);
    /// How often what is kept is looked through for what is old, or of a session that has ended.
    pub const MCP_KEPT_SWEEP: Duration = Duration::from_secs(1);
    /// Events that are kept of one stream.
    pub const MCP_KEPT_EVENTS_MAX: usize = 256;
    /// Bytes of them; a larger answer is kept until it is sent.
    pub const MCP_KEPT_BYTES_MAX: usize = 256 << 10;
    /// Bytes that are kept of all streams of a session.
    pub const MCP_KEPT_SESSION_BYTES_MAX: usize = 4 << 20;
    /// The same of all sessions of a key.
    pub const MCP_KEPT_KEY_BYTES_MAX: usize = 16 << 20;
    /// Streams of a session that are kept while nobody reads them.
    pub const MCP_KEPT_STREAMS_MAX: usize = 64;
    /// The same of all sessions of a key.
    pub const MCP_KEPT_STREAMS_KEY_MAX: usize = 512;
    /// How long a question waits on a stream that nobody reads.
    pub const MCP_ASKED_AWAY_MAX: Duration = Duration::from_secs(15);
    /// Streams of the transport of 2024-11-05 that one key's clients have open.
    pub const MCP_SSE_KEY_MAX: usize = 32;
    /// How long such a client has to begin.
    pub const MCP_SSE_BEGIN_MAX: Duration = Duration::from_secs(30);
}

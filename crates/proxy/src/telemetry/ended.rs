/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client hung up, or its connection broke.
    Client,
    /// The server ended it, or its connection broke.
    Server,
    /// The proxy ended it between messages in a shutdown, with an error for the client.
    Drained,
    /// The proxy ended it between messages, with an error for the client, because its server does not suit any more.
    Demoted,
    /// The proxy cut it off in a shutdown, or in the middle of an answer of a server that does not suit any more.
    Cut,
}

impl Ended {
    pub(super) const ALL: [Self; 5] = [Self::Client, Self::Server, Self::Drained, Self::Demoted, Self::Cut];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Drained => "drained",
            Self::Demoted => "demoted",
            Self::Cut => "cut",
        }
    }
}

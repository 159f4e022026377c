//! Who may come in: everything before a server is dialled.

use pgentra_wire::startup::StartupMessage;

use super::door::Door;
use super::{Injector, refusal};
use crate::observe::Visit;
use crate::session::client::{Client, Opening, Socket};
use crate::session::end::End;

impl Injector {
    /// Goes from the first byte to a client that may have the role it names. `None`: it was a cancel request, and is done.
    ///
    /// Not cancel-safe; dropped, the client can still be told why.
    pub(crate) async fn admit<S: Socket>(
        &self,
        client: &mut Client<S>,
        door: &Door,
        visit: &mut Visit,
    ) -> Result<Option<StartupMessage>, End> {
        let admitted = tokio::time::timeout(self.limits.start_up, self.ask(client, door, visit)).await;
        match admitted.unwrap_or_else(|_| Err(refusal::slow().into()))? {
            Opening::Startup(start) => Ok(Some(start)),
            Opening::Cancel(request) => {
                self.pass_on(&request).await;
                Ok(None)
            }
        }
    }

    async fn ask<S: Socket>(
        &self,
        client: &mut Client<S>,
        door: &Door,
        visit: &mut Visit,
    ) -> Result<Opening, End> {
        let opening = client.open(door.tls_over::<S>().map(super::Tls::acceptor)).await?;
        if !client.is_trusted(&door.uids) {
            return Err(refusal::stranger(client.address()).into());
        }
        // A cancel request is good for its key alone.
        if let Opening::Startup(start) = &opening {
            if start.user().is_empty() {
                return Err(refusal::no_user().into());
            }
            visit.asks(start);
            door.check_channel(client, start.user())?;
            client.negotiate(start).await?;
            door.check_password(client, start.user(), &self.shared.attempts).await?;
        }
        Ok(opening)
    }
}

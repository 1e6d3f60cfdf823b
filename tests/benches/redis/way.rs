//! An address that leads to whichever server is the primary.

use tidegate_tests::Outcome;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Leads on for as long as it lives.
pub(crate) struct Way {
    port: u16,
    to: watch::Sender<u16>,
}

impl Way {
    pub(crate) async fn to(server: u16) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (to, mut target) = watch::channel(server);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((socket, _)) = accepted else { continue };
                        tokio::spawn(lead(socket, target.clone()));
                    }
                    changed = target.changed() => if changed.is_err() { return },
                }
            }
        });
        Ok(Self { port, to })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Leads nowhere.
    pub(crate) fn close(&self) {
        self.to.send_replace(0);
    }

    /// Leads to another server; what goes on with the one before is cut.
    pub(crate) fn turn(&self, server: u16) {
        self.to.send_replace(server);
    }
}

async fn lead(mut socket: TcpStream, mut target: watch::Receiver<u16>) {
    let server = *target.borrow_and_update();
    let Ok(mut there) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    tokio::select! {
        // Either side may end it.
        _ = copy_bidirectional(&mut socket, &mut there) => {}
        _ = target.changed() => {}
    }
}

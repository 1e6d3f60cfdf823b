//! Starts and stops this node's roles as the cluster wants them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ractor::{
    Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent, async_trait,
};
use tokio::task::JoinHandle;

use crate::control::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::Means;
use crate::shard::actor;
use crate::shard::actor::RoleActor;
use crate::shard::role::{Act, Role, Step, Terms, act, is_stale};

/// How often the supervisor looks even if it was not told to.
const ROUND: Duration = Duration::from_secs(1);

/// Everything the supervisor is ever told, and by whom.
#[derive(Debug)]
pub enum Message {
    /// From the watch on the state and the lease, whenever they change.
    Look,
    /// From the node, when it shuts down: drain all and answer when done.
    Drain(RpcReplyPort<()>),
}

/// The actor above all roles of a node.
#[derive(Debug)]
pub struct Supervisor;

/// What runs here.
#[derive(Debug)]
pub struct Running {
    means: Means,
    roles: BTreeMap<Role, Terms>,
    actors: BTreeMap<Role, ActorRef<actor::Message>>,
    draining: BTreeSet<Role>,
    /// The node shuts down: nothing is started any more.
    closing: bool,
    drained: Option<RpcReplyPort<()>>,
    watcher: JoinHandle<()>,
}

/// The node's hold on its supervisor.
#[derive(Clone, Debug)]
pub struct SupervisorHandle(ActorRef<Message>);

impl SupervisorHandle {
    /// Starts the supervisor of this node.
    pub async fn start(means: Means) -> Result<Self> {
        let name = format!("supervisor-{}-{}", means.control.node(), means.control.run());
        let (actor, _) = Actor::spawn(Some(name), Supervisor, means).await.map_err(|error| {
            Error::new(ErrorKind::Corrupt, "start the supervisor").because(error.to_string())
        })?;
        Ok(Self(actor))
    }

    /// Stops all roles at the end of what they hold, and starts no more. Gives
    /// up after `wait`: false, and some may still be at work.
    pub async fn drain(&self, wait: Duration) -> bool {
        let (reply, done) = ractor::concurrency::oneshot();
        if self.0.send_message(Message::Drain(reply.into())).is_err() {
            return false;
        }
        let drained = matches!(tokio::time::timeout(wait, done).await, Ok(Ok(())));
        if !drained {
            tracing::warn!(
                "not everything was drained in time; the next owner goes on from the checkpoints"
            );
        }
        self.0.stop(None);
        drained
    }
}

#[async_trait]
impl Actor for Supervisor {
    type Msg = Message;
    type State = Running;
    type Arguments = Means;

    async fn pre_start(
        &self,
        me: ActorRef<Message>,
        means: Means,
    ) -> Result<Running, ActorProcessingErr> {
        let watcher = tokio::spawn(watch(me, means.clone()));
        Ok(Running {
            means,
            roles: BTreeMap::new(),
            actors: BTreeMap::new(),
            draining: BTreeSet::new(),
            closing: false,
            drained: None,
            watcher,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look => running.on_look(&me).await,
            Message::Drain(reply) => running.on_drain(reply),
        }
        Ok(())
    }

    /// One role's end is that role's business: the default would stop all.
    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Message>,
        event: SupervisionEvent,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, _) => running.on_gone(&who),
            SupervisionEvent::ActorFailed(who, error) => {
                tracing::error!(actor = ?who.get_name(), error = %error, "an actor failed");
                running.on_gone(&who);
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            }
        }
        drop(me.send_message(Message::Look));
        Ok(())
    }
}

impl Running {
    async fn on_look(&mut self, me: &ActorRef<Message>) {
        let control = &self.means.control;
        if self.closing {
            return;
        }
        let (me_in_run, held) = ((control.node(), control.run()), control.lease().held());
        let act = control.read(|state| act(state, me_in_run, held, &self.roles));
        let steps = match act {
            Act::Wait => return,
            Act::StopOwners => {
                self.kill_owners();
                return;
            }
            Act::Steps(steps) => steps,
        };
        for step in steps {
            match step {
                Step::Stop(role) => self.drain_role(&role),
                Step::Start(role, terms) => self.start_role(me, role, terms).await,
            }
        }
        self.sweep();
    }

    fn on_drain(&mut self, reply: RpcReplyPort<()>) {
        self.closing = true;
        self.drained = Some(reply);
        self.watcher.abort();
        let roles: Vec<_> = self.roles.keys().cloned().collect();
        for role in roles {
            self.drain_role(&role);
        }
        self.answer_if_drained();
    }

    fn on_gone(&mut self, who: &ActorCell) {
        let role = self.actors.iter().find(|(_, actor)| actor.get_id() == who.get_id());
        if let Some(role) = role.map(|(role, _)| role.clone()) {
            self.actors.remove(&role);
            self.roles.remove(&role);
            self.draining.remove(&role);
        }
        self.answer_if_drained();
    }

    async fn start_role(&mut self, me: &ActorRef<Message>, role: Role, terms: Terms) {
        let control = &self.means.control;
        // Names are global to the process, and tests run several nodes in one.
        let name = format!("{role} {} {}", control.node(), control.run());
        let arguments = (self.means.clone(), role.clone(), terms);
        match Actor::spawn_linked(Some(name), RoleActor, arguments, me.get_cell()).await {
            Ok((actor, _)) => {
                self.actors.insert(role.clone(), actor);
                self.roles.insert(role, terms);
            }
            Err(error) => tracing::error!(%role, error = %error, "start an actor; trying again"),
        }
    }

    fn drain_role(&mut self, role: &Role) {
        if self.draining.insert(role.clone())
            && let Some(actor) = self.actors.get(role)
        {
            drop(actor.send_message(actor::Message::Drain));
        }
    }

    /// Ends what only one node may do; a copy harms nobody.
    fn kill_owners(&mut self) {
        let owners = self.actors.iter().filter(|(role, _)| !matches!(role, Role::Copy(_)));
        let mut count = 0;
        for (_, actor) in owners {
            actor.kill();
            count += 1;
        }
        if count > 0 {
            tracing::warn!(roles = count, "the lease has run out; stopping");
        }
    }

    fn answer_if_drained(&mut self) {
        if self.actors.is_empty()
            && let Some(reply) = self.drained.take()
        {
            // Whoever asked may have given up.
            drop(reply.send(()));
        }
    }

    /// Deletes logs that are other nodes' to keep.
    fn sweep(&self) {
        let (control, spool) = (&self.means.control, &self.means.spool);
        for shard in spool.held() {
            let stale = control.read(|state| is_stale(state, shard, control.node()));
            let removed = if stale { spool.remove(shard) } else { Ok(()) };
            if let Err(error) = removed {
                tracing::warn!(error = %error, %shard, "delete a log that is no longer ours");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// Tells the supervisor to look whenever the state or the lease changed.
async fn watch(supervisor: ActorRef<Message>, means: Means) {
    let mut topology = means.control.topology();
    let mut lease = means.control.lease();
    let mut held = false;
    loop {
        tokio::select! {
            changed = topology.changed() => if changed.is_err() { return },
            () = turn(&mut lease, held) => held = !held,
            () = tokio::time::sleep(ROUND) => {}
        }
        if supervisor.send_message(Message::Look).is_err() {
            return;
        }
    }
}

/// Waits until a lease that is `held` is lost, or one that is not is gained.
async fn turn(lease: &mut Lease, held: bool) {
    if held { lease.lost().await } else { lease.gained().await }
}

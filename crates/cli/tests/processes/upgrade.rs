//! A rolling upgrade: nodes run programs of two versions side by side, and are replaced one after
//! another under load. The older program is `stubborn node`; the newer one is this test's program,
//! whose machine also supports version 2 of the commands: there, what is put is marked.

use std::env;
use std::io::Read;
use std::ops::RangeInclusive;
use std::process::Command;

use stubborn::kv::{
    CompareAndSwapReply, CompareAndSwapRequest, DeleteReply, DeleteRequest, GetReply, GetRequest,
    KvClient, KvMachine, KvReplica, ListReply, ListRequest, Pair, PutReply, PutRequest, Store,
    WatchReply, WatchRequest,
};
use stubborn::{Applied, Identity, Image, Piece, Replica, RestoreError, Status, Trust};

use crate::cluster::Cluster;
use crate::world::World;

/// What a value that was put in version 2 begins with.
const MARK: &[u8] = b"2:";

/// Keys and values, with commands of two versions.
struct Next(Store);

impl KvMachine for Next {
    const VERSIONS: RangeInclusive<u32> = 1..=2;

    fn put(&mut self, at: &Applied, mut request: PutRequest) -> Result<PutReply, Status> {
        if at.version == 2 {
            request.value = [MARK, &request.value].concat().into();
        }
        self.0.put(at, request)
    }

    fn get(&self, request: GetRequest) -> Result<GetReply, Status> {
        self.0.get(request)
    }

    fn delete(&mut self, at: &Applied, request: DeleteRequest) -> Result<DeleteReply, Status> {
        self.0.delete(at, request)
    }

    fn compare_and_swap(
        &mut self,
        at: &Applied,
        request: CompareAndSwapRequest,
    ) -> Result<CompareAndSwapReply, Status> {
        self.0.compare_and_swap(at, request)
    }

    fn list(&self, request: ListRequest) -> Result<ListReply, Status> {
        self.0.list(request)
    }

    fn watch(
        &self,
        request: WatchRequest,
        position: u64,
    ) -> Result<stubborn::Next<WatchReply>, Status> {
        self.0.watch(request, position)
    }

    fn snapshot(&self) -> Image {
        self.0.snapshot()
    }

    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
        self.0.restore(piece)
    }
}

/// The newer program.
fn next_program() -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    let name = "upgrade::node_of_the_next_version";
    command.args(["--ignored", "--exact", name, "--nocapture"]);
    command
}

#[test]
#[ignore = "a process of the test below"]
fn node_of_the_next_version() {
    let Ok(config) = env::var("STUBBORN_TEST_NODE") else { return };
    let folder = config.strip_suffix("node.conf").unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let settings = || text.lines().filter_map(|line| line.split_once(" = "));
    let setting = |name| settings().find(|(known, _)| *known == name).unwrap().1;
    let file = |name| format!("{folder}{}", setting(name));
    let mut replica = Replica::open(file("data"))
        .group(u64::from_str_radix(setting("group"), 16).unwrap())
        .node(setting("node").parse().unwrap())
        .listen(setting("listen"))
        .identity(Identity::from_pem_files(file("certificate"), file("key")).unwrap())
        .authority(Trust::pem_file(file("authority")).unwrap())
        .machine(KvReplica::new(Next(Store::new())));
    for (_, member) in settings().filter(|(name, _)| *name == "member") {
        let mut words = member.split(' ');
        let mut word = || words.next().unwrap();
        let (number, address, key) = (word(), word(), word());
        replica = replica.member(number.parse().unwrap(), address, key.parse().unwrap());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let replica = replica.start().await.unwrap();
        println!("\n{}", replica.local_addr());
        let (gone, wait) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read(&mut [0]);
            drop(gone);
        });
        replica.until(async { drop(wait.await) }).await.unwrap();
    });
}

/// Puts values one after another, and sees to it that all nodes have the same then. Returns whether the
/// last one was marked.
fn put_some(world: &World, puts: &mut u64, count: u64) -> bool {
    let is_marked = |pair: &Pair| pair.value.starts_with(MARK);
    for _ in 0..count {
        *puts += 1;
        let put = PutRequest { key: format!("put-{puts:03}"), value: puts.to_string().into() };
        world.runtime.block_on(world.client.put(put).into_future()).unwrap();
    }
    let all = states(world, "put-");
    assert_eq!(all.len() as u64, *puts);
    // Every put before the entry that activated version 2 is of version 1, every later one is not.
    assert!(all.is_sorted_by_key(is_marked), "{all:?}");
    is_marked(all.last().unwrap())
}

/// The pairs that all nodes have under these keys.
fn states(world: &World, prefix: &str) -> Vec<Pair> {
    let cluster = &world.cluster;
    let all = (0..cluster.len()).map(|node| world.runtime.block_on(state(cluster, node, prefix)));
    let mut all = all.collect::<Vec<_>>();
    assert!(all.windows(2).all(|two| two[0] == two[1]), "the nodes differ: {all:?}");
    all.swap_remove(0)
}

async fn state(cluster: &Cluster, node: usize, prefix: &str) -> Vec<Pair> {
    let client: KvClient = cluster.client_at(node).await;
    let list = ListRequest { prefix: prefix.into(), ..ListRequest::default() };
    client.list(list).await.unwrap().pairs
}

#[test]
fn nodes_are_upgraded_one_after_another_under_load_and_an_older_program_stops_afterwards() {
    let mut world = World::new(3);
    let mut puts = 0;
    world.progress();
    for node in 0..3 {
        assert!(!put_some(&world, &mut puts, 10), "version 2 is active before node {node} has it");
        world.cluster.kill(node);
        world.progress();
        world.cluster.restart_with(node, next_program());
        world.progress();
    }
    // All support it: the leader hears so within a second, and nobody has to ask for it.
    while !put_some(&world, &mut puts, 1) {
        world.progress();
    }
    // A node that goes back to the older program says why it cannot, and harms nobody.
    world.cluster.kill(1);
    let said = world.cluster.restart_in_vain(1);
    let why = "the group has activated version 2 of stubborn.kv.v1.Kv's commands, and this program \
               supports 1 to 1";
    assert!(said.contains(why), "{said}");
    world.progress();
    world.cluster.restart_with(1, next_program());
    world.progress();
    // All at once: from their disks they come back to the same version.
    for node in 0..3 {
        world.cluster.kill(node);
    }
    for node in 0..3 {
        world.cluster.restart_with(node, next_program());
    }
    world.progress();
    assert!(put_some(&world, &mut puts, 10));
    world.judge(puts);
    // What the callers have changed is the same everywhere, too.
    states(&world, "");
}

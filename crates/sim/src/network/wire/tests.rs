use super::*;

struct Link {
    wire: Wire,
    ends: [SocketAddr; 2],
    now: Instant,
}

impl Link {
    fn new() -> Self {
        let mut wire = Wire::new(Random::from_seed([5; 32]));
        let ends = [0, 1].map(|i| wire.join(HostId(i)));
        Self { wire, ends, now: Instant::ZERO }
    }

    fn send(&mut self, size: usize) -> Fate {
        let datagram = Datagram {
            from: self.ends[0],
            to: self.ends[1],
            ecn: Ecn::Ect0,
            data: BytesMut::zeroed(size),
            answers: false,
        };
        self.wire.send(self.now, HostId(0), datagram)
    }

    fn add(&mut self, rule: Rule) -> RuleId {
        self.wire.add(Scope::Everything, rule)
    }
}

#[test]
fn without_rules_a_datagram_arrives_once_unaltered() {
    let mut link = Link::new();
    let fate = link.send(100);
    assert_eq!(fate.arrivals.len(), 1);
    assert_eq!(fate.arrivals[0].0, Instant::ZERO + BASE_DELAY);
    assert!(fate.arrivals[0].1.data.iter().all(|b| *b == 0));
}

#[test]
fn a_cut_stops_everything_until_it_is_lifted() {
    let mut link = Link::new();
    let cut = link.add(Rule::Cut);
    assert_eq!(link.send(1).dropped, Some(Drop::Cut));
    link.wire.lift(cut);
    assert_eq!(link.send(1).dropped, None);
}

#[test]
fn loss_comes_near_its_probability() {
    let mut link = Link::new();
    link.add(Rule::Lose(0.2));
    let lost = (0..10_000).filter(|_| link.send(1).dropped == Some(Drop::Loss)).count();
    assert!((1_800..2_200).contains(&lost), "{lost}");
}

#[test]
fn jitter_keeps_the_order_and_reordering_does_not() {
    let mut link = Link::new();
    let jitter = Duration::from_millis(50);
    link.add(Rule::Delay { base: Duration::from_millis(1), jitter });
    let arrivals = |link: &mut Link| -> Vec<Instant> {
        (0..100).map(|_| link.send(1).arrivals[0].0).collect()
    };
    assert!(arrivals(&mut link).is_sorted());
    link.add(Rule::Reorder { chance: 0.5, later: Duration::from_millis(500) });
    assert!(!arrivals(&mut link).is_sorted());
}

#[test]
fn a_duplicate_arrives_later_and_is_the_same() {
    let mut link = Link::new();
    link.add(Rule::Duplicate { chance: 1.0, later: Duration::from_secs(600) });
    let fate = link.send(10);
    let [(copy_at, copy), (at, first)] = &fate.arrivals[..] else { panic!("two copies") };
    assert!(copy_at >= at);
    assert_eq!(copy.data, first.data);
}

#[test]
fn corruption_changes_bytes() {
    let mut link = Link::new();
    link.add(Rule::Corrupt(1.0));
    for _ in 0..100 {
        let fate = link.send(10);
        let data = &fate.arrivals[0].1.data;
        // Two flips may hit the same bit, rarely.
        assert!(data.len() < 10 || data.iter().any(|b| *b != 0) || data.iter().all(|b| *b == 0));
    }
}

#[test]
fn a_rate_limit_delays_and_then_drops_what_its_queue_has_no_room_for() {
    let mut link = Link::new();
    link.add(Rule::Limit { bytes_per_second: 1_000, queue: 2_000 });
    let second = Duration::from_secs(1);
    let first = link.send(1_000).arrivals[0].0;
    assert_eq!(first, Instant::ZERO + BASE_DELAY + second);
    assert_eq!(link.send(1_000).arrivals[0].0, first + second);
    assert_eq!(link.send(1_000).dropped, Some(Drop::QueueFull));
    link.now += Duration::from_secs(5);
    assert_eq!(link.send(1_000).dropped, None);
}

#[test]
fn a_datagram_larger_than_the_path_is_dropped() {
    let mut link = Link::new();
    assert_eq!(link.send(BASE_MTU + 1).dropped, Some(Drop::Mtu));
    let jumbo = link.add(Rule::Mtu(9_000));
    assert_eq!(link.send(9_000).dropped, None);
    link.wire.lift(jumbo);
    link.add(Rule::Mtu(1_200));
    assert_eq!(link.send(1_201).dropped, Some(Drop::Mtu));
}

#[test]
fn marks_are_set_and_removed() {
    let mut link = Link::new();
    link.add(Rule::MarkCongestion(1.0));
    assert_eq!(link.send(1).arrivals[0].1.ecn, Ecn::Ce);
    link.add(Rule::ClearEcn);
    assert_eq!(link.send(1).arrivals[0].1.ecn, Ecn::NotEct);
}

#[test]
fn after_a_rebinding_the_old_address_is_nobodys() {
    let mut link = Link::new();
    let old = link.ends[1];
    let new = link.wire.rebind(HostId(1), old);
    assert_eq!(link.send(1).dropped, Some(Drop::NoSuchAddress));
    link.ends[1] = new;
    assert_eq!(link.send(1).dropped, None);
}

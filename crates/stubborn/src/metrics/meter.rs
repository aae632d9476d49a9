//! Counts the calls of one node, on one side. It is changed under the node's lock.

use std::borrow::Cow;
use std::collections::BTreeMap;

use stubborn_core::node::RequestKey;
use stubborn_core::service::{
    Answer, CallError, Code, Method, MethodId, Outcome, Registry, ServiceDescriptor,
};
use stubborn_core::session::NotExecutedReason;
#[cfg(feature = "replica")]
use stubborn_core::time::Duration;
use stubborn_core::time::Instant;

use super::histogram::Histogram;
use super::{Count, MethodCalls, Side};

/// Methods that a client counts each by itself; calls of further ones are counted together.
const MOST_METHODS: usize = 1_024;

/// gRPC's codes, and more reasons than there are.
const CODES: usize = 17;
const REASONS: usize = 24;

/// Counts the calls of each method. The first entry is for the calls of all that have none.
#[derive(Debug)]
pub(crate) struct Meter {
    methods: Vec<Tally>,
    by_id: BTreeMap<MethodId, u32>,
    /// The method of the last call, which is mostly that of the next.
    last: Option<(MethodId, u32)>,
    /// Requests that are executing, each at the index of its key.
    requests: Vec<Option<(RequestKey, Begun)>>,
}

/// Both sides of a node.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) served: Meter,
    pub(crate) called: Meter,
}

/// A call that was begun. Its end is to be told, once.
#[derive(Clone, Copy, Debug)]
#[must_use = "a call that was begun is in flight until its end is told"]
pub(crate) struct Begun {
    method: u32,
    at: Instant,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Replied,
    Status(Code),
    NotExecuted(NotExecutedReason),
    Pending,
    Lost,
    Unanswered,
    Abandoned,
}

/// The calls of one method.
#[derive(Debug)]
struct Tally {
    method: Cow<'static, str>,
    in_flight: u64,
    replied: u64,
    statuses: [u64; CODES],
    not_executed: [u64; REASONS],
    pending: u64,
    lost: u64,
    unanswered: u64,
    abandoned: u64,
    /// Of the first call and those after it.
    latency: Option<Box<Histogram>>,
}

impl Meters {
    /// A node's, with the methods that it serves.
    pub(crate) fn new(registry: &Registry) -> Self {
        Self { served: Meter::of(registry), called: Meter::new() }
    }

    pub(crate) fn add_to(&self, all: &mut Sum) {
        self.served.add_to(Side::Server, all);
        self.called.add_to(Side::Client, all);
    }
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            methods: vec![Tally::new(Cow::Borrowed(""))],
            by_id: BTreeMap::new(),
            last: None,
            requests: Vec::new(),
        }
    }

    /// With a count of its own for each method of these services.
    pub(crate) fn of(registry: &Registry) -> Self {
        let mut meter = Self::new();
        registry.descriptors().for_each(|service| meter.know(service));
        meter
    }

    /// Each method of this service gets a count of its own.
    pub(crate) fn know(&mut self, service: &'static ServiceDescriptor) {
        for method in service.methods {
            self.add(method.id(), method.name());
        }
    }

    /// A call that began and ended elsewhere.
    #[cfg(feature = "replica")]
    pub(crate) fn count(&mut self, method: MethodId, took: Duration, ending: Ending) {
        let begun = self.begin(method, Instant::ZERO);
        self.end(begun, Instant::ZERO + took, ending);
    }

    /// These are the methods of the calls that are under way, none of which was begun here.
    #[cfg(feature = "replica")]
    pub(crate) fn set_in_flight(&mut self, methods: impl IntoIterator<Item = MethodId>) {
        self.methods.iter_mut().for_each(|tally| tally.in_flight = 0);
        for method in methods {
            let index = self.find(method);
            self.methods[index as usize].in_flight += 1;
        }
    }

    /// A call of a method that has a count, or goes with all that have none.
    pub(crate) fn begin(&mut self, method: MethodId, now: Instant) -> Begun {
        let index = match self.last {
            Some((last, index)) if last == method => index,
            _ => self.find(method),
        };
        self.begin_at(index, now)
    }

    /// A call of a method that gets a count if it has none.
    pub(crate) fn begin_call(&mut self, method: &Method, now: Instant) -> Begun {
        let index = match self.last {
            Some((last, index)) if last == method.id() => index,
            _ => match self.find(method.id()) {
                0 if self.methods.len() <= MOST_METHODS => {
                    self.add(method.id(), method.name().to_owned())
                }
                index => index,
            },
        };
        self.begin_at(index, now)
    }

    /// A request, until [`answered`](Self::answered) or [`cancelled`](Self::cancelled).
    pub(crate) fn request(&mut self, key: RequestKey, method: MethodId, now: Instant) {
        let begun = self.begin(method, now);
        if key.index() >= self.requests.len() {
            self.requests.resize(key.index() + 1, None);
        }
        if let Some((_, before)) = self.requests[key.index()].replace((key, begun)) {
            self.end(before, now, Ending::Abandoned);
        }
    }

    pub(crate) fn answered(&mut self, key: RequestKey, answer: &Answer, now: Instant) {
        self.close(key, Ending::of_answer(answer), now);
    }

    pub(crate) fn cancelled(&mut self, key: RequestKey, now: Instant) {
        self.close(key, Ending::Abandoned, now);
    }

    fn close(&mut self, key: RequestKey, ending: Ending, now: Instant) {
        let Some(place) = self.requests.get_mut(key.index()) else { return };
        if let Some((_, begun)) = place.take_if(|(own, _)| *own == key) {
            self.end(begun, now, ending);
        }
    }

    /// The end of a call that this meter has begun.
    pub(crate) fn end(&mut self, begun: Begun, now: Instant, ending: Ending) {
        let Some(tally) = self.methods.get_mut(begun.method as usize) else { return };
        tally.in_flight = tally.in_flight.saturating_sub(1);
        let count = match ending {
            Ending::Replied => &mut tally.replied,
            Ending::Status(code) => &mut tally.statuses[(code as usize).min(CODES - 1)],
            Ending::NotExecuted(reason) => {
                &mut tally.not_executed[(reason.to_wire() as usize).min(REASONS - 1)]
            }
            Ending::Pending => &mut tally.pending,
            Ending::Lost => &mut tally.lost,
            Ending::Unanswered => &mut tally.unanswered,
            Ending::Abandoned => &mut tally.abandoned,
        };
        *count += 1;
        if ending != Ending::Abandoned {
            let time = now.as_nanos().saturating_sub(begun.at.as_nanos());
            tally.latency.get_or_insert_default().record(time);
        }
    }

    pub(crate) fn add_to(&self, side: Side, all: &mut Sum) {
        for tally in &self.methods {
            if !tally.method.is_empty() || tally.is_used() {
                all.add(&tally.tell(side));
            }
        }
    }

    fn find(&mut self, method: MethodId) -> u32 {
        let index = self.by_id.get(&method).copied().unwrap_or(0);
        if index != 0 {
            self.last = Some((method, index));
        }
        index
    }

    fn add(&mut self, id: MethodId, name: impl Into<Cow<'static, str>>) -> u32 {
        let index = u32::try_from(self.methods.len()).expect("methods are bounded far below 2^32");
        self.methods.push(Tally::new(name.into()));
        self.by_id.insert(id, index);
        self.last = Some((id, index));
        index
    }

    fn begin_at(&mut self, method: u32, at: Instant) -> Begun {
        self.methods[method as usize].in_flight += 1;
        Begun { method, at }
    }
}

/// What several meters, or several processes, have counted, in the order of methods and sides.
#[derive(Debug, Default)]
pub(crate) struct Sum(pub(super) Vec<MethodCalls>);

impl Sum {
    pub(super) fn add(&mut self, calls: &MethodCalls) {
        let key = |calls: &MethodCalls| (calls.method.clone(), calls.side);
        match self.0.binary_search_by_key(&key(calls), key) {
            Ok(at) => self.0[at].merge(calls),
            Err(at) => self.0.insert(at, calls.clone()),
        }
    }
}

impl Tally {
    fn new(method: Cow<'static, str>) -> Self {
        Self {
            method,
            in_flight: 0,
            replied: 0,
            statuses: [0; CODES],
            not_executed: [0; REASONS],
            pending: 0,
            lost: 0,
            unanswered: 0,
            abandoned: 0,
            latency: None,
        }
    }

    fn is_used(&self) -> bool {
        self.in_flight > 0 || self.abandoned > 0 || self.latency.is_some()
    }

    fn tell(&self, side: Side) -> MethodCalls {
        MethodCalls {
            method: self.method.clone().into_owned(),
            side: side.into(),
            in_flight: self.in_flight,
            replied: self.replied,
            statuses: counts(&self.statuses, |number| {
                words(&format!("{:?}", Code::from_number(number)))
            }),
            not_executed: counts(&self.not_executed, |number| {
                match NotExecutedReason::from_wire(number) {
                    Some(reason) => words(&format!("{reason:?}")),
                    None => "other".to_owned(),
                }
            }),
            pending: self.pending,
            lost: self.lost,
            unanswered: self.unanswered,
            abandoned: self.abandoned,
            latency: Some(self.latency.as_ref().map(|latency| latency.tell()).unwrap_or_default()),
        }
    }
}

fn counts(all: &[u64], name: impl Fn(u64) -> String) -> Vec<Count> {
    let some = (0..).zip(all).filter(|(_, count)| **count > 0);
    some.map(|(number, count)| Count { name: name(number), count: *count }).collect()
}

/// `NotFound` as `not_found`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

impl Ending {
    pub(crate) fn of_answer(answer: &Answer) -> Self {
        match answer {
            Answer::Reply(..) => Self::Replied,
            Answer::Status(status) => Self::Status(status.code()),
            Answer::NotExecuted(why) => Self::NotExecuted(why.reason),
        }
    }

    pub(crate) fn of_result<T>(result: &Result<T, CallError>) -> Self {
        match result.as_ref().map_err(CallError::outcome) {
            Ok(_) => Self::Replied,
            Err(Outcome::Executed(status)) => Self::Status(status.code()),
            Err(Outcome::NotExecuted(why)) => Self::NotExecuted(why.reason),
            Err(Outcome::Pending(_)) => Self::Pending,
            Err(Outcome::Lost) => Self::Lost,
            Err(Outcome::Unanswered) => Self::Unanswered,
        }
    }
}

#[cfg(feature = "replica")]
impl From<stubborn_group::Ending> for Ending {
    fn from(ending: stubborn_group::Ending) -> Self {
        match ending {
            stubborn_group::Ending::Replied => Self::Replied,
            stubborn_group::Ending::Status(code) => Self::Status(code),
            stubborn_group::Ending::NotExecuted(reason) => Self::NotExecuted(reason),
        }
    }
}

impl MethodCalls {
    fn merge(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        self.replied += other.replied;
        merge_counts(&mut self.statuses, &other.statuses);
        merge_counts(&mut self.not_executed, &other.not_executed);
        self.pending += other.pending;
        self.lost += other.lost;
        self.unanswered += other.unanswered;
        self.abandoned += other.abandoned;
        if let Some(latency) = &other.latency {
            self.latency.get_or_insert_default().merge(latency);
        }
    }

    /// Calls that have ended.
    pub fn ended(&self) -> u64 {
        let counted = self.statuses.iter().chain(&self.not_executed).map(|count| count.count);
        let others = [self.replied, self.pending, self.lost, self.unanswered, self.abandoned];
        counted.sum::<u64>() + others.iter().sum::<u64>()
    }
}

fn merge_counts(own: &mut Vec<Count>, others: &[Count]) {
    for other in others {
        match own.iter_mut().find(|own| own.name == other.name) {
            Some(own) => own.count += other.count,
            None => own.push(other.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use stubborn_core::service::{Semantics, Shape, Status};

    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(1_000 * micros)
    }

    fn told(meter: &Meter) -> Vec<MethodCalls> {
        let mut all = Sum::default();
        meter.add_to(Side::Client, &mut all);
        all.0
    }

    fn method(number: usize) -> Method {
        Method::dynamic(format!("a.B/M{number}"), Semantics::Read, Shape::Unary)
    }

    #[test]
    fn every_call_is_in_flight_or_in_one_of_the_counts() {
        let mut meter = Meter::new();
        let why = NotExecutedReason::UnknownMethod;
        let endings = [
            Ending::Replied,
            Ending::Status(Code::NotFound),
            Ending::NotExecuted(why),
            Ending::Pending,
            Ending::Lost,
            Ending::Unanswered,
            Ending::Abandoned,
        ];
        let begun: Vec<_> = endings.map(|_| meter.begin_call(&method(1), at(0))).into();
        assert_eq!(told(&meter)[0].in_flight, endings.len() as u64);
        for (begun, ending) in begun.into_iter().zip(endings) {
            meter.end(begun, at(50), ending);
        }
        let [calls] = told(&meter).try_into().unwrap();
        assert_eq!((calls.in_flight, calls.ended()), (0, endings.len() as u64));
        assert_eq!(calls.statuses, [Count { name: "not_found".into(), count: 1 }]);
        assert_eq!(calls.not_executed, [Count { name: "unknown_method".into(), count: 1 }]);
        let latency = calls.latency.unwrap();
        assert_eq!((latency.count, latency.max_ns), (6, 50_000), "abandoned calls took no time");
    }

    #[test]
    fn methods_beyond_the_bound_are_counted_together() {
        let mut meter = Meter::new();
        for number in 0..MOST_METHODS + 10 {
            let begun = meter.begin_call(&method(number), at(0));
            meter.end(begun, at(1), Ending::of_answer(&Answer::Status(Status::aborted("x"))));
        }
        let told = told(&meter);
        assert_eq!((told.len(), told[0].method.as_str()), (MOST_METHODS + 1, ""));
        assert_eq!(told[0].ended(), 10);
    }

    #[test]
    fn several_workers_are_one_server() {
        let (mut one, mut other) = (Meter::new(), Meter::new());
        for meter in [&mut one, &mut other] {
            let begun = meter.begin_call(&method(1), at(0));
            meter.end(begun, at(9), Ending::Replied);
        }
        let mut all = Sum::default();
        one.add_to(Side::Server, &mut all);
        other.add_to(Side::Server, &mut all);
        let [calls] = all.0.try_into().unwrap();
        assert_eq!((calls.replied, calls.latency.unwrap().count), (2, 2));
    }
}

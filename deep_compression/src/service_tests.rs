//! Host tests of the queue: the transition table pair by pair, and random histories against a model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::engine::{DecompressError, Limits};
use crate::service::{
    Action, Actions, CAPACITY, Client, Event, JobEvent, JobId, JobSpec, JobState, MAX_ACTIONS, Next,
    PER_CLIENT, Priority, Service, ServiceError,
};

const A: Client = Client(1);
const B: Client = Client(2);
const FOREGROUND: JobSpec = JobSpec { input_len: 100, output_len: 1000, priority: Priority::Foreground };
const BACKGROUND: JobSpec = JobSpec { priority: Priority::Background, ..FOREGROUND };

fn service() -> Service {
    Service::new(Limits::DEFAULT)
}

fn list(actions: &Actions) -> Vec<Action> {
    actions.iter().collect()
}

fn submit(service: &mut Service, client: Client, spec: JobSpec) -> Result<JobId, ServiceError> {
    let actions = service.handle(Event::Submit { client, spec })?;
    match actions.iter().next() {
        Some(Action::Accepted { job, .. }) => Ok(job),
        other => panic!("no acceptance but {other:?}"),
    }
}

/// What the worker has.
fn running(service: &Service) -> Option<JobId> {
    service.jobs().find(|job| job.state == JobState::Running).map(|job| job.id)
}

/// The event must be refused so, and change nothing.
fn refused(service: &mut Service, event: Event, error: ServiceError) {
    let before = service.clone();
    assert_eq!(service.handle(event), Err(error), "{event:?}");
    assert_eq!(*service, before, "{event:?} changed the state");
}

#[test]
fn service_carries_a_job_from_submit_to_collect() {
    let mut service = service();
    let actions = service.handle(Event::Submit { client: A, spec: FOREGROUND }).expect("accepted");
    let job = JobId(1);
    assert_eq!(list(&actions), [Action::Accepted { job, slot: 0 }, Action::Start { job, slot: 0 }]);
    let actions = service.handle(Event::Completed { job, verdict: Ok(()) }).expect("completed");
    assert_eq!(list(&actions), [Action::Notify { client: A }]);
    let actions = service.handle(Event::Collect { client: A, job }).expect("collected");
    assert_eq!(list(&actions), [Action::Deliver { job, verdict: Ok(()) }, Action::Release { job, slot: 0 }]);
    refused(&mut service, Event::Collect { client: A, job }, ServiceError::NoSuchJob);
    assert_eq!(service.jobs().count(), 0);
}

#[test]
fn service_delivers_the_reason_of_a_failed_job() {
    let mut service = service();
    let job = submit(&mut service, A, FOREGROUND).expect("accepted");
    let verdict = Err(DecompressError::ChecksumMismatch);
    service.handle(Event::Completed { job, verdict }).expect("completed");
    let actions = service.handle(Event::Collect { client: A, job }).expect("collected");
    assert_eq!(actions.iter().next(), Some(Action::Deliver { job, verdict }));
}

#[test]
fn service_limits_jobs_per_client_and_in_total() {
    let mut service = service();
    for _ in 0..PER_CLIENT {
        submit(&mut service, A, FOREGROUND).expect("accepted");
    }
    refused(&mut service, Event::Submit { client: A, spec: FOREGROUND }, ServiceError::ClientLimit);
    for index in PER_CLIENT..CAPACITY {
        submit(&mut service, Client(100 + index as u64), FOREGROUND).expect("accepted");
    }
    refused(&mut service, Event::Submit { client: B, spec: FOREGROUND }, ServiceError::Busy);
}

#[test]
fn service_refuses_sizes_out_of_bounds() {
    let mut service = service();
    let sizes = |input_len, output_len| Event::Submit {
        client: A,
        spec: JobSpec { input_len, output_len, priority: Priority::Foreground },
    };
    let limits = Limits::DEFAULT;
    refused(&mut service, sizes(0, 10), ServiceError::InputSize);
    refused(&mut service, sizes(limits.max_input + 1, 10), ServiceError::InputSize);
    refused(&mut service, sizes(u64::MAX, u64::MAX), ServiceError::InputSize);
    refused(&mut service, sizes(10, limits.max_output + 1), ServiceError::OutputSize);
    assert!(service.handle(sizes(limits.max_input, limits.max_output)).is_ok());
}

#[test]
fn service_runs_one_job_at_a_time_foreground_first() {
    let mut service = service();
    let first = submit(&mut service, A, BACKGROUND).expect("accepted");
    let background = submit(&mut service, A, BACKGROUND).expect("accepted");
    let foreground = submit(&mut service, B, FOREGROUND).expect("accepted");
    let mut order = vec![first];
    while let Some(running) = running(&service) {
        let actions = service.handle(Event::Completed { job: running, verdict: Ok(()) }).expect("completed");
        order.extend(actions.iter().filter_map(|action| match action {
            Action::Start { job, .. } => Some(job),
            _ => None,
        }));
    }
    assert_eq!(order, [first, foreground, background]);
}

#[test]
fn service_keeps_clients_out_of_each_others_jobs() {
    let mut service = service();
    let job = submit(&mut service, A, FOREGROUND).expect("accepted");
    refused(&mut service, Event::Collect { client: B, job }, ServiceError::NoSuchJob);
    refused(&mut service, Event::Cancel { client: B, job }, ServiceError::NoSuchJob);
    service.handle(Event::Completed { job, verdict: Ok(()) }).expect("completed");
    refused(&mut service, Event::Collect { client: B, job }, ServiceError::NoSuchJob);
    refused(&mut service, Event::Collect { client: A, job: JobId(99) }, ServiceError::NoSuchJob);
}

#[test]
fn service_refuses_repeated_late_and_unsolicited_completions() {
    let mut service = service();
    let completed = |job| Event::Completed { job, verdict: Ok(()) };
    refused(&mut service, completed(JobId(1)), ServiceError::NotRunning);
    let running = submit(&mut service, A, FOREGROUND).expect("accepted");
    let queued = submit(&mut service, A, FOREGROUND).expect("accepted");
    refused(&mut service, completed(queued), ServiceError::NotRunning);
    refused(&mut service, Event::Collect { client: A, job: running }, ServiceError::NotReady);
    refused(&mut service, Event::Collect { client: A, job: queued }, ServiceError::NotReady);
    service.handle(completed(running)).expect("completed");
    refused(&mut service, completed(running), ServiceError::NotRunning);
}

#[test]
fn service_releases_a_dead_clients_jobs_and_waits_for_the_worker() {
    let mut service = service();
    let running = submit(&mut service, A, FOREGROUND).expect("accepted");
    let queued = submit(&mut service, A, FOREGROUND).expect("accepted");
    let other = submit(&mut service, B, FOREGROUND).expect("accepted");
    let actions = service.handle(Event::ClientGone { client: A }).expect("gone");
    assert_eq!(list(&actions), [Action::Release { job: queued, slot: 1 }]);
    refused(&mut service, Event::Collect { client: A, job: running }, ServiceError::NoSuchJob);
    refused(&mut service, Event::Cancel { client: A, job: running }, ServiceError::NoSuchJob);
    let actions = service.handle(Event::Completed { job: running, verdict: Ok(()) }).expect("completed");
    assert_eq!(
        list(&actions),
        [Action::Release { job: running, slot: 0 }, Action::Start { job: other, slot: 2 }]
    );
}

#[test]
fn service_cancels_in_every_state() {
    let mut service = service();
    let running = submit(&mut service, A, FOREGROUND).expect("accepted");
    let queued = submit(&mut service, A, FOREGROUND).expect("accepted");
    let actions = service.handle(Event::Cancel { client: A, job: queued }).expect("cancelled");
    assert_eq!(list(&actions), [Action::Release { job: queued, slot: 1 }]);
    service.handle(Event::Completed { job: running, verdict: Ok(()) }).expect("completed");
    let actions = service.handle(Event::Cancel { client: A, job: running }).expect("cancelled");
    assert_eq!(list(&actions), [Action::Release { job: running, slot: 0 }]);
    let job = submit(&mut service, A, FOREGROUND).expect("accepted");
    assert!(service.handle(Event::Cancel { client: A, job }).expect("cancelled").is_empty());
}

#[test]
fn job_transition_table_answers_every_pair() {
    let done = JobState::Done(Ok(()));
    let complete = JobEvent::Complete(Ok(()));
    let table = [
        (JobState::Queued, JobEvent::Start, Ok(Next::State(JobState::Running))),
        (JobState::Queued, complete, Err(ServiceError::NotRunning)),
        (JobState::Queued, JobEvent::Collect, Err(ServiceError::NotReady)),
        (JobState::Queued, JobEvent::Drop, Ok(Next::Gone)),
        (JobState::Running, JobEvent::Start, Err(ServiceError::NotReady)),
        (JobState::Running, complete, Ok(Next::State(done))),
        (JobState::Running, JobEvent::Collect, Err(ServiceError::NotReady)),
        (JobState::Running, JobEvent::Drop, Ok(Next::State(JobState::Abandoned))),
        (JobState::Abandoned, JobEvent::Start, Err(ServiceError::NoSuchJob)),
        (JobState::Abandoned, complete, Ok(Next::Gone)),
        (JobState::Abandoned, JobEvent::Collect, Err(ServiceError::NoSuchJob)),
        (JobState::Abandoned, JobEvent::Drop, Err(ServiceError::NoSuchJob)),
        (done, JobEvent::Start, Err(ServiceError::NotReady)),
        (done, complete, Err(ServiceError::NotRunning)),
        (done, JobEvent::Collect, Ok(Next::Gone)),
        (done, JobEvent::Drop, Ok(Next::Gone)),
    ];
    for (state, event, next) in table {
        assert_eq!(state.after(event), next, "{state:?} {event:?}");
    }
}

#[test]
fn no_event_overflows_the_action_list() {
    // The worst case: every slot is one client's (by many badges in turn), and all go at once.
    let mut service = service();
    let mut most = 0;
    for index in 0..CAPACITY {
        let actions = service.handle(Event::Submit { client: Client(index as u64 / 4), spec: FOREGROUND });
        most = most.max(actions.expect("accepted").len());
    }
    for client in 0..(CAPACITY as u64).div_ceil(4) {
        most = most.max(service.handle(Event::ClientGone { client: Client(client) }).expect("gone").len());
    }
    assert!((1..MAX_ACTIONS).contains(&most), "{most}");
    const { assert!(PER_CLIENT + 2 <= MAX_ACTIONS) };
}

fn any_event() -> impl Strategy<Value = Event> {
    let client = || (0u64..5).prop_map(Client);
    let job = || (0u64..40).prop_map(JobId);
    let spec = (0u64..3, 0u64..3, any::<bool>()).prop_map(|(input_len, output_len, background)| JobSpec {
        input_len,
        output_len,
        priority: if background { Priority::Background } else { Priority::Foreground },
    });
    prop_oneof![
        4 => (client(), spec).prop_map(|(client, spec)| Event::Submit { client, spec }),
        3 => job().prop_map(|job| Event::Completed { job, verdict: Ok(()) }),
        3 => (client(), job()).prop_map(|(client, job)| Event::Collect { client, job }),
        1 => (client(), job()).prop_map(|(client, job)| Event::Cancel { client, job }),
        1 => client().prop_map(|client| Event::ClientGone { client }),
    ]
}

/// What the binary would hold: slot by slot, whose resources.
#[derive(Default)]
struct Resources {
    held: BTreeMap<usize, JobId>,
    worker: Option<JobId>,
}

impl Resources {
    fn carry_out(&mut self, event: Event, actions: &Actions) {
        if let Event::Completed { job, .. } = event {
            assert_eq!(self.worker.take(), Some(job), "a completion of what does not run was accepted");
        }
        for action in actions.iter() {
            match action {
                Action::Accepted { job, slot } => {
                    assert_eq!(self.held.insert(slot, job), None, "slot reused")
                }
                Action::Start { job, slot } => {
                    assert_eq!(self.held.get(&slot), Some(&job));
                    assert_eq!(self.worker.replace(job), None, "two jobs at once");
                }
                Action::Release { job, slot } => {
                    assert_ne!(self.worker, Some(job), "released under the worker");
                    assert_eq!(self.held.remove(&slot), Some(job), "released twice");
                }
                Action::Notify { .. } | Action::Deliver { .. } => {}
            }
        }
    }
}

proptest! {
    #[test]
    fn service_never_leaks_reuses_or_starts_twice(events in prop::collection::vec(any_event(), 0..200)) {
        let limits = Limits { max_input: 2, max_output: 1, max_window: 0 };
        let mut service = Service::new(limits);
        let mut resources = Resources::default();
        for event in events {
            let before = service.clone();
            match service.handle(event) {
                Ok(actions) => resources.carry_out(event, &actions),
                Err(_) => prop_assert_eq!(&service, &before),
            }
            let held: Vec<_> = (0..CAPACITY).filter_map(|slot| Some((slot, service.job_in(slot)?.id))).collect();
            prop_assert_eq!(&held, &resources.held.iter().map(|(slot, job)| (*slot, *job)).collect::<Vec<_>>());
            let waiting = service.jobs().any(|job| job.state == JobState::Queued);
            prop_assert!(resources.worker.is_some() || !waiting, "a job waits for an idle worker");
            for client in 0..5 {
                let mine = service.jobs().filter(|job| job.client == Client(client) && job.state != JobState::Abandoned);
                prop_assert!(mine.count() <= PER_CLIENT);
            }
        }
    }
}

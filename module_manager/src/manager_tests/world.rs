use super::*;

/// The binary's part, with every resource that exists and every reply that went out.
pub(super) struct World {
    pub manager: Manager,
    pub now: u64,
    pub exists: BTreeMap<Instance, Held>,
    pub replies: BTreeMap<RequestId, Action>,
    pub asked: u64,
    /// Steps under way.
    pub steps: Vec<Action>,
    pub processes: BTreeMap<Instance, u64>,
    pub unregistered: Vec<Instance>,
    /// Whether there is a module cache.
    pub has_cache: bool,
    /// The manifests whose images are in it.
    pub in_cache: Vec<Digest>,
    /// What the depot answers at once; `None`: it does not.
    pub depot: Option<Result<Option<Found>, Failure>>,
}

impl World {
    pub fn new() -> Self {
        let packages = vec![package("counter", 0), package("wasm", 0), package("counter", 3)];
        let mut manager = Manager::new(packages, Vec::new());
        manager.handle(1, Event::Policy(Box::new(policy()))).unwrap();
        World {
            manager,
            now: 1,
            exists: BTreeMap::new(),
            replies: BTreeMap::new(),
            asked: 0,
            steps: Vec::new(),
            processes: BTreeMap::new(),
            unregistered: Vec::new(),
            has_cache: false,
            in_cache: Vec::new(),
            depot: Some(Ok(None)),
        }
    }

    pub fn event(&mut self, event: Event) -> Result<(), Illegal> {
        let before = self.manager.clone();
        match self.manager.handle(self.now, event) {
            Ok(actions) => actions.into_iter().for_each(|action| self.act(action)),
            Err(illegal) => {
                assert_eq!(self.manager, before, "a refused event changes nothing");
                return Err(illegal);
            }
        }
        let held: BTreeMap<_, _> = self.manager.held().filter(|(_, held)| !held.is_empty()).collect();
        assert_eq!(held, self.exists, "the record is what exists");
        Ok(())
    }

    pub fn act(&mut self, action: Action) {
        match action {
            Action::Adopt(_, instance) => self.add(instance, Held::GRANTS),
            Action::Release(instance, what, _) => {
                let held = self.exists.get_mut(&instance).expect("released twice");
                assert!(held.contains(what), "{what:?} released twice");
                held.remove(what);
                if held.is_empty() {
                    self.exists.remove(&instance);
                }
            }
            Action::Loaded(request, ..) | Action::Stopped(request) | Action::Refused(request, _) => {
                assert!(self.replies.insert(request, action).is_none(), "two replies");
            }
            step => self.steps.push(step),
        }
    }

    pub fn add(&mut self, instance: Instance, what: Held) {
        let held = self.exists.entry(instance).or_insert(Held::empty());
        assert!(!held.intersects(what));
        held.insert(what);
    }

    pub fn remove(&mut self, instance: Instance, what: Held) {
        if let Some(held) = self.exists.get_mut(&instance) {
            held.remove(what);
        }
    }

    pub fn load(&mut self, requester: u64, target: Load) -> RequestId {
        self.asked += 1;
        let request = RequestId(self.asked);
        self.event(Event::Load { request, requester, target: Box::new(target) }).unwrap();
        self.locate();
        request
    }

    /// Lets the depot answer what it is asked, if it does.
    pub fn locate(&mut self) {
        while let Some(answer) = self.depot
            && let Some(at) = self.steps.iter().position(|step| matches!(step, Action::Locate(..)))
        {
            let instance = instance_of(&self.steps.remove(at));
            if let Ok(Some(_)) = answer {
                self.add(instance, Held::PACKAGE);
            }
            self.event(Event::Step { instance, result: answer.map(Done::Located) }).unwrap();
        }
    }

    pub fn stop(&mut self, requester: u64, process: u64) -> RequestId {
        self.asked += 1;
        let request = RequestId(self.asked);
        self.event(Event::Stop { request, requester, process }).unwrap();
        request
    }

    /// Ends the oldest step well, with what `change` makes of the facts.
    pub fn succeed_with(&mut self, change: impl FnOnce(&mut Facts)) {
        let step = self.steps.remove(0);
        let (instance, done) = match step {
            Action::Locate(instance, _) => (instance, Done::Located(None)),
            Action::Verify(instance, package) => {
                let mut facts = facts_of(&package);
                change(&mut facts);
                (instance, Done::Verified(Box::new(facts)))
            }
            Action::CreateOutput(instance, _) => {
                self.add(instance, Held::OUTPUT);
                (instance, Done::Plain)
            }
            Action::Submit(instance, _, window) => {
                assert_eq!(window, 23);
                self.add(instance, Held::JOB);
                (instance, Done::Submitted(instance.0 + 100))
            }
            Action::Collect(instance, job) => {
                assert_eq!(job, instance.0 + 100);
                self.remove(instance, Held::JOB);
                (instance, Done::Plain)
            }
            Action::BuildProof(instance, _) => {
                self.add(instance, Held::PROOF);
                (instance, Done::Plain)
            }
            Action::Check(instance, facts) => match self.in_cache.contains(&facts.digest) {
                true => {
                    self.add(instance, Held::CACHED);
                    (instance, Done::Cached)
                }
                false => (instance, Done::Plain),
            },
            Action::Cache(instance) if self.has_cache => {
                self.add(instance, Held::CACHED);
                (instance, Done::Cached)
            }
            Action::Endow(instance, ..) => {
                self.add(instance, Held::SOURCES);
                (instance, Done::Plain)
            }
            Action::Create(instance, _) => {
                self.add(instance, Held::PROCESS);
                let process = instance.0 - FIRST_INSTANCE + 10;
                self.processes.insert(instance, process);
                (instance, Done::Created(process))
            }
            Action::Unregister(instance) => {
                self.unregistered.push(instance);
                (instance, Done::Plain)
            }
            Action::Copy(instance, _)
            | Action::Cache(instance)
            | Action::Seal(instance)
            | Action::Confirm(instance, ..)
            | Action::Start(instance) => (instance, Done::Plain),
            other => panic!("not a step: {other:?}"),
        };
        self.event(Event::Step { instance, result: Ok(done) }).unwrap();
    }

    pub fn succeed(&mut self) {
        self.succeed_with(|_| ());
    }

    pub fn fail(&mut self, failure: Failure) {
        let step = self.steps.remove(0);
        let instance = instance_of(&step);
        if matches!(step, Action::Collect(..)) {
            self.remove(instance, Held::JOB);
        }
        if matches!(step, Action::Unregister(_)) {
            self.unregistered.push(instance);
        }
        self.event(Event::Step { instance, result: Err(failure) }).unwrap();
    }

    /// Runs the only load up to this stage.
    pub fn run_to(&mut self, stage: Stage) -> Instance {
        let (instance, _) = self.manager.held().last().unwrap();
        for _ in 0..20 {
            match self.manager.stage(instance) {
                Some(now) if now == stage => return instance,
                Some(Stage::Decompressing) => self.event(Event::Signalled).unwrap(),
                Some(Stage::Initialising) => self.event(Event::Ready(instance)).unwrap(),
                _ => self.succeed(),
            }
        }
        panic!("{stage:?} not reached");
    }

    pub fn failure(&self, request: RequestId) -> Failure {
        match self.replies.get(&request) {
            Some(Action::Refused(_, failure)) => *failure,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub fn assert_clean(&self) {
        assert!(self.exists.is_empty(), "{:?}", self.exists);
        assert!(self.steps.is_empty(), "{:?}", self.steps);
        assert_eq!(self.replies.len() as u64, self.asked, "every request has its reply");
    }

    pub fn loaded(&self, request: RequestId) -> Loaded {
        match self.replies.get(&request) {
            Some(Action::Loaded(_, _, loaded)) => *loaded,
            other => panic!("not loaded: {other:?}"),
        }
    }
}

fn instance_of(step: &Action) -> Instance {
    match step {
        Action::Locate(i, _)
        | Action::Verify(i, _)
        | Action::CreateOutput(i, _)
        | Action::Submit(i, ..)
        | Action::Collect(i, _)
        | Action::Copy(i, _)
        | Action::Seal(i)
        | Action::BuildProof(i, _)
        | Action::Check(i, _)
        | Action::Cache(i)
        | Action::Endow(i, ..)
        | Action::Create(i, _)
        | Action::Confirm(i, ..)
        | Action::Start(i)
        | Action::Unregister(i) => *i,
        other => panic!("not a step: {other:?}"),
    }
}

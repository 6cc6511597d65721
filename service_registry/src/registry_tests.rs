use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const A: u64 = 1 << 32;
const B: u64 = A + 1;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn register(
    registry: &mut Registry,
    caller: u64,
    publisher: &str,
    service: &str,
) -> Result<Answer, RegistryError> {
    let label = Some(Label { publisher: name(publisher), name: name(service) });
    registry.handle(Event::Register { caller, name: name(service), label })
}

#[test]
fn a_registered_service_is_found_with_its_publisher() {
    let mut registry = Registry::new();
    assert_eq!(register(&mut registry, A, "pub", "counter"), Ok(Answer::Registered { place: 0 }));
    let entry = Entry { name: name("counter"), publisher: name("pub"), registrant: A };
    assert_eq!(
        registry.handle(Event::Lookup { name: name("counter") }),
        Ok(Answer::Found { place: 0, entry })
    );
}

#[test]
fn an_unknown_service_is_not_found() {
    let event = Event::Lookup { name: name("nosuch") };
    assert_eq!(Registry::new().handle(event), Err(RegistryError::NoSuchService));
}

#[test]
fn an_unlabelled_endpoint_is_refused() {
    let mut registry = Registry::new();
    let event = Event::Register { caller: A, name: name("counter"), label: None };
    assert_eq!(registry.handle(event), Err(RegistryError::Unlabelled));
    assert_eq!(registry, Registry::new());
}

#[test]
fn an_endpoint_labelled_for_another_service_is_refused() {
    let label = Some(Label { publisher: name("pub"), name: name("other") });
    let event = Event::Register { caller: A, name: name("counter"), label };
    assert_eq!(Registry::new().handle(event), Err(RegistryError::LabelMismatch));
}

#[test]
fn a_live_name_is_refused_to_everybody_else() {
    let mut registry = Registry::new();
    register(&mut registry, A, "pub", "counter").unwrap();
    let before = registry.clone();
    assert_eq!(register(&mut registry, A, "pub", "counter"), Err(RegistryError::AlreadyRegistered));
    assert_eq!(register(&mut registry, B, "pub", "counter"), Err(RegistryError::NameTaken));
    assert_eq!(register(&mut registry, B, "evil", "counter"), Err(RegistryError::OtherPublisher));
    assert_eq!(register(&mut registry, A, "evil", "counter"), Err(RegistryError::OtherPublisher));
    assert_eq!(registry, before);
}

#[test]
fn only_the_manager_unregisters() {
    let mut registry = Registry::new();
    register(&mut registry, A, "pub", "counter").unwrap();
    for caller in [1, A, B] {
        let event = Event::Unregister { caller, instance: A };
        assert_eq!(registry.handle(event), Err(RegistryError::NotAuthorised));
    }
    let event = Event::Unregister { caller: MANAGER_BADGE, instance: A };
    assert_eq!(registry.handle(event), Ok(Answer::Removed { places: 1 }));
    assert_eq!(registry, Registry::new());
}

#[test]
fn an_ended_registrant_loses_its_services_and_no_other() {
    let mut registry = Registry::new();
    register(&mut registry, A, "pub", "a1").unwrap();
    register(&mut registry, B, "pub", "b").unwrap();
    register(&mut registry, A, "pub", "a2").unwrap();
    let event = Event::Unregister { caller: MANAGER_BADGE, instance: A };
    assert_eq!(registry.handle(event), Ok(Answer::Removed { places: 0b101 }));
    assert_eq!(registry.handle(event), Ok(Answer::Removed { places: 0 }));
    assert_eq!(registry.entries().count(), 1);
    register(&mut registry, B, "pub", "a1").unwrap();
}

#[test]
fn the_table_is_bounded_in_all_and_for_each_registrant() {
    let mut registry = Registry::new();
    for i in 0..CAPACITY {
        let caller = A + (i / PER_REGISTRANT) as u64;
        register(&mut registry, caller, "pub", &format!("s{i}")).unwrap();
    }
    assert_eq!(register(&mut registry, B + 99, "pub", "more"), Err(RegistryError::TableFull));
    assert_eq!(register(&mut registry, A, "pub", "more"), Err(RegistryError::TooManyServices));
}

#[test]
fn a_name_whose_endpoint_is_gone_is_free_again() {
    let mut registry = Registry::new();
    register(&mut registry, A, "pub", "a1").unwrap();
    register(&mut registry, A, "pub", "a2").unwrap();
    assert_eq!(register(&mut registry, B, "pub", "a1"), Err(RegistryError::NameTaken));
    registry.forget(0);
    assert_eq!(register(&mut registry, B, "pub", "a1"), Ok(Answer::Registered { place: 0 }));
    assert_eq!(register(&mut registry, B, "pub", "a2"), Err(RegistryError::NameTaken));
}

#[test]
fn the_list_gives_every_service_once() {
    let mut registry = Registry::new();
    for service in ["a", "b", "c"] {
        register(&mut registry, A, "pub", service).unwrap();
    }
    registry.forget(1);
    let mut names = Vec::new();
    let mut cursor = 0;
    while let Ok(Answer::Record(service)) = registry.handle(Event::List { cursor }) {
        names.push(service.name.as_str().to_string());
        cursor = service.cursor;
    }
    assert_eq!(names, ["a", "c"]);
    assert_eq!(registry.handle(Event::List { cursor: u64::MAX }), Err(RegistryError::NoMoreEntries));
}

#[test]
fn every_standing_answers_every_event() {
    let mut lines = 0;
    for standing in [Standing::Absent, Standing::Own, Standing::Sibling, Standing::Foreign] {
        for event in [NameEvent::Register, NameEvent::Lookup, NameEvent::RegistrantEnded] {
            let step = standing.after(event);
            assert_eq!(step == Ok(Step::Enter), (standing, event) == (Standing::Absent, NameEvent::Register));
            assert_eq!(
                step == Ok(Step::Leave),
                (standing, event) == (Standing::Own, NameEvent::RegistrantEnded)
            );
            lines += 1;
        }
    }
    assert_eq!(lines, 12);
}

proptest! {
    /// Against a map from names to (publisher, registrant): same answers, and refusals change nothing.
    #[test]
    fn the_registry_agrees_with_a_map(events in proptest::collection::vec((0u8..4, 0u64..4, 0u8..6, 0u8..2), 1..200)) {
        let mut registry = Registry::new();
        let mut model: BTreeMap<Name, (Name, u64)> = BTreeMap::new();
        for (kind, caller, service, publisher) in events {
            let service = name(&format!("s{service}"));
            let publisher = name(&format!("p{publisher}"));
            let before = registry.clone();
            let answer = match kind {
                0 | 1 => {
                    let label = Some(Label { publisher, name: service });
                    let answer = registry.handle(Event::Register { caller, name: service, label });
                    prop_assert_eq!(answer.is_ok(), !model.contains_key(&service));
                    model.entry(service).or_insert((publisher, caller));
                    answer
                }
                2 => {
                    let answer = registry.handle(Event::Lookup { name: service });
                    let found = match answer {
                        Ok(Answer::Found { entry, .. }) => Some((entry.publisher, entry.registrant)),
                        _ => None,
                    };
                    prop_assert_eq!(found, model.get(&service).copied());
                    answer
                }
                _ => {
                    let instance = u64::from(service.as_bytes()[1] % 4);
                    let answer = registry.handle(Event::Unregister { caller, instance });
                    if caller == MANAGER_BADGE {
                        model.retain(|_, (_, registrant)| *registrant != instance);
                    } else {
                        prop_assert_eq!(answer, Err(RegistryError::NotAuthorised));
                    }
                    answer
                }
            };
            if answer.is_err() {
                prop_assert_eq!(&registry, &before);
            }
            let now: BTreeMap<_, _> =
                registry.entries().map(|(_, e)| (e.name, (e.publisher, e.registrant))).collect();
            prop_assert_eq!(&now, &model);
        }
    }
}

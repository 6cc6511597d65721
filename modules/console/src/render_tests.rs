use super::*;
use sila_rt::sila_abi::Error;
use sila_rt::sila_abi::protocol::module_manager::ModuleState;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn process(id: u64, called: &str) -> ProcessRecord {
    let mut record = ProcessRecord {
        id,
        state: 2,
        version: Version::new(1, 2, 3).to_word(),
        frames: 25,
        object_bytes: 3000,
        capabilities: 9,
        threads: 1,
        priority: 100,
        name_len: called.len() as u64,
        name: [0; 64],
        publisher_len: 4,
        publisher: [0; 64],
    };
    record.name[..called.len()].copy_from_slice(called.as_bytes());
    record.publisher[..4].copy_from_slice(b"sila");
    record
}

#[test]
fn amounts_of_memory_have_units() {
    for (amount, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (5 << 20, "5 MiB"),
        (u64::MAX, "17179869183.9 GiB"),
    ] {
        assert_eq!(bytes(amount), text);
    }
}

#[test]
fn ps_shows_one_aligned_line_for_each_process() {
    let shown = processes(&[process(1, "supervisor"), process(12, "counter")]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains("supervisor") && lines[1].contains("1.2.3") && lines[1].contains("running"));
    assert!(lines[2].starts_with("12  counter"));
    assert!(lines[2].contains("100 KiB") && lines[2].contains("2.9 KiB") && lines[2].ends_with("sila"));
    let column = lines[0].find("NAME");
    assert_eq!(lines[1].find("supervisor"), column);
    assert_eq!(lines[2].find("counter"), column);
}

#[test]
fn a_record_with_a_hostile_length_is_cut() {
    let mut record = process(1, "x");
    record.name_len = u64::MAX;
    assert!(processes(&[record]).contains('x'));
    assert_eq!(process_name(&[process(4, "wasm")], 4), Some("wasm".into()));
    assert_eq!(process_name(&[process(4, "wasm")], 5), None);
}

#[test]
fn rights_are_words() {
    assert_eq!(rights(0), "none");
    assert_eq!(rights((Rights::READ | Rights::SEND | Rights::ENDOW).bits().into()), "read send endow");
    assert_eq!(rights(1 << 40), "0x10000000000");
}

#[test]
fn caps_show_types_and_badges() {
    let record = |object_type, badge| CapabilityRecord {
        slot: 6,
        object_type,
        rights: Rights::SEND.bits().into(),
        badge,
        index: 3,
        children: 1,
        request: 0,
        rule: 0,
        policy: 0,
    };
    let endpoint = ObjectType::Endpoint as u64;
    let records = [record(endpoint, 5), record(endpoint, FIRST_INSTANCE + 2), record(99, 0)];
    let shown = capabilities(&records, None);
    assert!(shown.contains("Endpoint") && shown.contains("instance 2") && shown.contains('?'));
    assert_eq!(shown.lines().count(), 4);
}

#[test]
fn caps_name_the_request_and_the_rule_that_gave_them() {
    let record = |request, rule, policy| CapabilityRecord {
        slot: 6,
        object_type: ObjectType::Pool as u64,
        rights: Rights::READ.bits().into(),
        badge: 0,
        index: 3,
        children: 1,
        request,
        rule,
        policy,
    };
    let policy = crate::trust::tests::policy();
    let shown = |record| {
        let text = capabilities(&[record], Some(&policy));
        text.lines().nth(1).map(String::from).unwrap()
    };
    assert!(shown(record(4, 1, policy.sequence)).contains("      4  pool  read"));
    assert!(shown(record(4, 1, policy.sequence - 1)).contains("rule 1 of policy 76"));
    assert!(shown(record(4, 200, policy.sequence)).contains("rule 200 of policy 77"));
    assert!(shown(record(4, 0, 0)).contains("boot manifest"));
    assert!(shown(record(0, 0, 0)).contains("      -  -     read"));
}

#[test]
fn mem_shows_amounts_and_frames() {
    let record = MemoryRecord {
        frames_total: 1000,
        frames_free: 600,
        frames_quarantined: 2,
        bytes_total: 1 << 20,
        bytes_used: 2048,
        objects: 17,
        capabilities: 40,
        ram_bytes: 128 << 20,
    };
    let shown = memory(&record);
    assert!(shown.contains("used") && shown.contains("1.5 MiB") && shown.contains("400"));
    assert!(shown.contains("128 MiB") && shown.contains("17"));
}

#[test]
fn modules_show_where_they_stand_and_how_they_ended() {
    let record = ModuleRecord {
        cursor: 1,
        process: 9,
        state: ModuleState::Ended,
        version: Version::new(1, 0, 0),
        requester: 3,
        cause: 3,
        code: 14,
        name: name("counter"),
        publisher: None,
    };
    let shown = modules(&[record]);
    assert!(shown.contains("counter") && shown.contains("ended") && shown.contains("fault 14"));
    assert_eq!(modules(&[]), "no modules were loaded\n");
    assert_eq!((end(0, 0), end(1, 7), end(2, 0)), (String::new(), "exit 7".into(), "terminated".into()));
}

#[test]
fn services_show_their_publisher() {
    let service = Service {
        cursor: 1,
        registrant: FIRST_INSTANCE,
        name: name("counter"),
        publisher: name("sila.demo"),
    };
    assert!(services(&[service]).contains("sila.demo"));
    assert_eq!(services(&[]), "no services are registered\n");
}

#[test]
fn load_errors_name_module_and_cause() {
    let nosuch = name("nosuch");
    let failed = |failure| load_failed(&nosuch, None, &failure);
    let unknown = failed(LoadError::NoSuchModule.into());
    assert_eq!(unknown, "load: no module named `nosuch` is known");
    let refused = failed(Failure::kernel(LoadError::CreateRefused, Error::KeyRevoked, 0));
    assert!(refused.contains("`nosuch`") && refused.contains(Error::KeyRevoked.sentence()));
    let version = Some(Version::new(9, 0, 0));
    let missing = load_failed(&nosuch, version, &LoadError::NoSuchVersion.into());
    assert_eq!(missing, "load: module `nosuch` is known, but not in version 9.0.0");
    let bad = load_failed(&nosuch, version, &LoadError::PackageSignature.into());
    assert!(bad.contains("9.0.0") && bad.contains("signature"));
}

#[test]
fn stop_errors_name_the_process() {
    assert!(stop_failed(7, &LoadError::NoSuchProcess.into()).contains("process 7"));
    assert!(stop_failed(7, &LoadError::NotYours.into()).contains("scope"));
}

#[test]
fn a_load_tells_process_publisher_and_manifest() {
    let record = Loaded {
        process: 9,
        version: Version::new(1, 0, 0),
        instance: FIRST_INSTANCE,
        publisher: name("sila.demo"),
        digest: [0xab; 32],
    };
    let shown = loaded(&name("counter"), &record);
    assert_eq!(shown, "counter 1.0.0 by sila.demo runs as process 9 (manifest abababababababab…)\n");
}

#[test]
fn uptime_counts_in_the_units_it_needs() {
    assert_eq!(uptime(0), "up 0.000 s\n");
    assert_eq!(uptime(59_999_999_999), "up 59.999 s\n");
    assert_eq!(uptime(61_002_000_000), "up 1 min 1.002 s\n");
    assert_eq!(uptime(7_265_000_000_000), "up 2 h 1 min 5.000 s\n");
}

#[test]
fn text_from_elsewhere_cannot_steer_the_terminal() {
    assert_eq!(harmless(b"ok\n\tx"), "ok\n\tx");
    assert_eq!(harmless(b"\x1b[2J\r\x07"), "?[2J??");
    assert_eq!(harmless("\u{9b}H é".as_bytes()), "?H é");
}

#[test]
fn help_lists_every_command() {
    assert_eq!(help().lines().count(), HELP.len());
}

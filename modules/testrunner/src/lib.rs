//! The in-guest tests. Each is a function with a name that says what it checks; the binary runs those that the boot
//! bundle's plan names, and the host's harness reads the same table to name them.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod between;
mod budgets;
mod cache;
mod caps;
mod child;
mod control;
mod creating;
mod depot;
mod durable;
mod exhaustion;
mod failing;
mod flips;
mod handover;
mod hardware;
mod hostile;
mod isolation;
mod journal;
mod lab;
mod loading;
mod matrix;
mod memory;
mod messages;
mod priorities;
mod processes;
mod puppet;
mod running;
mod second;
mod signatures;
mod state;
mod status;
mod trace;
mod transfer;

use handover::{deaths, deposits, moving, refusals, states};
use hostile::{compression, manager, registry, service};

pub use child::{Child, End};
pub use depot::stand_in_for_the_depot;
pub use lab::{Failure, Lab, Outcome, report};

use alloc::string::String;
use alloc::vec::Vec;

/// The test data entry that lists the tests to run, one name a line.
pub const PLAN: &str = "plan";
/// The test data entry with the probe's image.
pub const PROBE_IMAGE: &str = "probe.image";
/// The test data entry with the probe's load proof.
pub const PROBE_PROOF: &str = "probe.proof";
/// The test data entry with the image of the smallest module.
pub const TINY_IMAGE: &str = "tiny.image";
/// The test data entry with its load proof.
pub const TINY_PROOF: &str = "tiny.proof";
/// The test data entry with outside vectors for signatures: each its number and whether it is valid (bit 0) in eight
/// bytes, then a case (`sila_abi::verify_case`).
pub const VECTORS: &str = "signature.vectors";
/// How many of them are valid, and how many are not.
pub const VECTOR_COUNTS: (u32, u32) = (71, 170);
/// The test data entry with a signature of the second scheme (`sila_abi::verify_case`).
pub const SECOND_CASE: &str = "second.case";
/// The test data entry that lists bad packages: `GROUP HINT MAJOR.MINOR.PATCH LABEL WORD0 WORD1 what is wrong`.
pub const BAD_PACKAGES: &str = "bad.packages";
/// The test data entry that lists bad proofs and images: `ERROR PROOF IMAGE what is wrong`.
pub const BAD_PROOFS: &str = "bad.proofs";

/// The test data entry that lists packages of the bundle whose parts the kernel is given unchecked:
/// `ERROR HINT MAJOR.MINOR.PATCH what is wrong`, with `none` for an error if the parts that the kernel looks at are good.
pub const BYPASSES: &str = "bypasses";
/// A package of the bundle: the probe's image, compressed, under a name of its own.
pub const PREY: &str = "prey";

/// A test.
#[derive(Clone, Copy)]
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// The module it is in.
    pub module: &'static str,
    /// What it does.
    pub run: fn(&Lab) -> Outcome,
}

macro_rules! tests {
    ($($module:ident: $($name:ident)+;)+) => {
        &[$($(Test { name: stringify!($name), module: stringify!($module), run: $module::$name }),+),+]
    };
}

/// Every test.
pub const TESTS: &[Test] = tests! {
    isolation:
        reading_the_kernel_ends_only_the_offender
        writing_the_kernel_ends_only_the_offender
        executing_the_kernel_ends_only_the_offender
        unmapped_memory_and_null_end_only_the_offender
        memory_of_another_process_is_not_there
        own_code_and_constants_cannot_be_written
        own_data_and_stack_cannot_be_executed
        privileged_instructions_end_only_the_offender
        ports_without_a_capability_end_only_the_offender
        interrupt_vectors_of_the_kernel_are_closed_to_ring_3
        jumps_to_addresses_that_are_none_end_only_the_offender
        any_stack_pointer_at_a_system_call_does_no_harm
        trap_and_alignment_flags_do_no_harm
        the_direction_flag_does_no_harm
        stack_overflow_hits_the_guard_page
        a_panic_ends_the_process_with_its_own_code;
    state:
        registers_of_others_do_not_reach_a_new_thread
        floating_point_and_vector_state_is_each_threads_own
        a_pending_floating_point_exception_is_the_threads_own
        flags_that_a_thread_sets_do_not_outlive_its_system_call
        flags_of_one_thread_do_not_reach_another
        segment_bases_are_each_threads_own
        segment_bases_that_are_no_addresses_do_no_harm
        segment_selectors_do_no_harm
        instructions_on_system_state_end_only_the_offender
        instructions_that_tell_where_the_kernel_keeps_its_tables_are_refused
        the_extended_control_register_stays_as_it_is
        the_answer_to_a_fault_sets_nothing_but_instruction_and_stack
        threads_begin_at_addresses_of_ring_3_only;
    running:
        a_spinning_process_is_preempted
        equal_priorities_share_the_cpu
        a_higher_priority_runs_first
        vector_registers_survive_preemption
        a_receive_ends_at_its_deadline
        a_call_ends_at_its_deadline
        an_idle_processor_is_woken_by_deadlines_only
        yield_lets_the_others_run
        an_alarm_sets_its_flags_at_its_time
        a_suspended_thread_does_not_run;
    priorities:
        every_priority_up_to_the_ceiling_can_be_had
        no_thread_or_endpoint_is_made_above_the_ceiling
        a_receiver_runs_at_the_highest_of_its_own_the_ceiling_and_the_callers_priority
        callers_are_received_by_priority_then_by_arrival
        equals_take_turns_of_the_same_length;
    budgets:
        a_spinning_process_leaves_the_rest_to_a_lower_priority
        a_budget_is_not_evaded_by_yielding
        a_budget_is_not_evaded_by_threads
        a_budget_is_not_evaded_by_calls
        a_budget_is_not_evaded_by_operations_that_restart
        a_budget_survives_suspension
        a_spent_process_is_not_stopped
        a_spent_thread_goes_on_at_the_next_period
        a_spent_server_answers_once_nobody_else_runs
        a_process_that_ends_while_it_is_spent_returns_everything
        a_budget_needs_a_manager_and_bounds;
    messages:
        words_arrive_unchanged_at_every_length
        longer_messages_than_the_limit_are_refused
        a_badge_tells_the_receiver_who_calls
        replies_may_go_out_of_order
        a_reply_answers_once
        a_dropped_reply_tells_the_caller
        a_late_reply_finds_no_caller
        the_death_of_a_receiver_ends_waiting_calls
        the_death_of_a_receiver_ends_delivered_calls_apart
        only_the_receiver_receives
        a_taken_reply_slot_leaves_the_message_queued
        a_labelled_endpoint_goes_to_its_own_service_only
        bound_flags_interrupt_a_receive
        a_badged_notification_sets_only_its_own_flags
        malformed_system_calls_are_refused;
    transfer:
        capabilities_travel_with_a_message
        capabilities_need_the_grant_right_to_travel
        a_transfer_of_four_is_all_or_nothing
        occupied_slots_refuse_a_transfer
        endow_only_capabilities_do_not_travel
        a_reply_can_be_passed_on_and_not_copied;
    matrix:
        every_operation_needs_its_right
        every_operation_refuses_other_types
        every_operation_refuses_an_empty_slot
        every_operation_but_housekeeping_refuses_endow_only
        every_capability_argument_needs_its_right
        every_destination_must_be_a_free_slot;
    caps:
        rights_only_shrink
        a_badge_is_set_once
        move_keeps_the_place_in_the_derivation
        delete_hands_the_children_to_the_parent
        revoke_deletes_all_descendants_and_no_more
        a_capability_to_a_dead_object_is_refused
        ports_outside_the_range_are_refused;
    memory:
        map_checks_every_range
        mappings_do_not_overlap
        nothing_maps_executable
        seal_is_refused_while_writable
        a_sealed_region_is_never_writable_again
        write_needs_the_write_right
        a_region_lives_as_long_as_it_is_mapped
        frames_run_out_with_an_error_and_come_back
        object_bytes_run_out_with_an_error_and_come_back
        a_region_that_is_too_large_costs_nothing;
    processes:
        exit_code_and_cause_are_recorded
        terminate_returns_every_frame_and_byte
        a_fault_returns_every_frame_and_byte
        an_exhausted_process_returns_everything
        threads_run_out_with_an_error
        a_process_outlives_its_first_thread
        a_watcher_of_an_ended_process_is_told_at_once
        a_process_starts_once
        priorities_above_the_ceiling_are_refused
        enumeration_shows_the_live_processes;
    depot:
        a_package_of_the_depot_that_could_still_change_is_not_read
        a_depot_that_lies_fails_only_loads_that_need_it
        rubbish_of_the_depot_is_tried_a_few_times_and_no_more
        an_exact_version_of_the_bundle_is_loaded_without_the_depot;
    loading:
        counter_loads_and_counts
        wasm_loads_and_runs_a_program
        loaded_modules_are_enumerated
        load_and_stop_of_counter_return_every_frame_and_byte
        load_and_stop_of_wasm_return_every_frame_and_byte
        an_unknown_module_is_refused_by_name
        a_load_without_a_pool_is_refused
        a_load_beyond_the_scope_is_refused
        a_load_with_another_digest_is_refused
        packages_with_a_flipped_bit_are_refused
        truncated_packages_are_refused
        packages_with_bad_headers_are_refused
        packages_with_bad_signatures_are_refused
        packages_with_bad_keys_are_refused
        packages_with_bad_manifests_are_refused
        packages_with_mixed_parts_are_refused
        packages_with_bad_payloads_are_refused
        packages_beyond_their_authority_are_refused;
    creating:
        bad_proofs_are_refused
        an_unsealed_image_is_refused
        an_image_with_another_byte_is_refused
        a_missing_mandatory_grant_is_refused
        a_source_of_another_type_is_refused
        a_source_with_too_few_rights_is_refused
        a_source_with_another_badge_is_refused
        an_endow_only_source_can_be_passed_on
        an_optional_request_may_stay_ungranted
        a_grant_that_nobody_requested_is_refused
        a_pool_that_is_too_small_is_refused
        a_version_with_other_content_is_refused
        the_new_process_holds_exactly_its_grants;
    cache:
        a_process_from_the_cache_is_the_one_that_its_parts_make
        an_image_is_found_by_its_module_s_id_until_it_is_taken_out
        nothing_that_is_not_verified_comes_in
        a_manager_gains_nothing_by_the_cache
        the_cache_gives_everything_back;
    signatures:
        outside_vectors_hold_in_ring_3
        outside_vectors_hold_in_the_verification_context
        what_is_no_signature_to_be_checked_is_refused
        verification_stays_far_from_the_end_of_its_stack;
    flips:
        flipped_bits_of_load_proofs_are_refused_by_the_kernel
        flipped_bits_of_images_are_refused_by_the_kernel
        flipped_bits_of_packages_are_refused_on_the_way_to_a_process;
    between:
        a_source_deleted_during_verification_is_missed
        a_pool_deleted_during_verification_is_missed
        a_caller_killed_during_verification_leaves_nothing
        a_destination_filled_during_verification_is_refused
        a_stale_or_forged_revocation_is_refused
        a_key_revoked_during_verification_is_refused;
    compression:
        a_decompressor_that_does_its_work_lets_the_module_run
        a_decompressor_that_returns_other_bytes_is_found_out
        a_decompressor_has_no_room_for_more_bytes
        a_decompressor_that_keeps_its_mapping_stops_the_load
        a_decompressor_that_writes_from_another_thread_stops_the_load
        a_decompressor_keeps_no_second_capability
        an_image_is_not_written_between_its_verification_and_its_process;
    registry:
        a_registry_that_tells_the_truth_is_believed
        an_endpoint_of_another_service_is_refused
        a_service_of_that_name_by_another_publisher_is_refused
        an_endpoint_of_the_registry_itself_is_refused
        what_is_no_endpoint_is_refused;
    manager:
        a_manager_that_checks_nothing_starts_only_what_was_signed
        a_manager_forges_no_manifest
        a_manager_swaps_no_binary
        a_manager_swaps_nothing_during_the_verification
        a_manager_grants_no_more_than_the_manifest_asks_for
        a_manager_grants_nothing_that_the_policy_forbids
        a_manager_loads_no_old_version
        a_manager_uses_nothing_that_it_may_only_pass_on;
    service:
        a_manager_receives_for_no_service
        a_manager_lets_no_other_module_receive_for_a_service
        a_manager_moves_no_label;
    status:
        a_mapping_tells_where_it_is_and_what_it_shows
        an_endpoint_tells_who_receives_and_how_many_wait
        a_sender_learns_nothing_of_the_other_senders
        a_notification_tells_its_flags_and_keeps_them
        a_badge_hides_the_flags_of_others
        a_job_counts_its_processes
        a_process_tells_what_it_uses
        a_reply_tells_whether_its_caller_waits
        an_interrupt_tells_whether_it_is_bound_and_silent
        ports_tell_how_many_there_are;
    trace:
        the_trace_shows_exactly_what_was_done
        the_trace_shows_a_process_from_its_making_to_its_end
        the_trace_shows_a_call_to_another_process_and_its_answer
        a_full_trace_counts_what_is_lost
        kinds_that_do_not_exist_are_refused
        counters_rise_by_what_they_count
        the_page_tables_pass_the_audit;
    exhaustion:
        the_invariants_of_the_kernel_hold;
    hardware:
        a_driver_maps_its_device_and_computes
        an_interrupt_of_a_device_reaches_its_driver
        an_interrupt_that_nobody_acknowledges_stays_silent_and_harms_nobody
        devices_that_share_a_line_do_not_hold_each_other_up
        dma_does_not_change_a_sealed_region
        dma_does_not_change_or_read_memory
        a_device_region_is_never_sealed
        a_device_region_is_no_image_and_no_proof
        a_device_region_is_no_signed_record
        a_device_region_is_never_executable_nor_written_through_a_readable_mapping
        a_device_region_ends_where_the_device_ends
        a_device_region_needs_its_rights
        device_regions_cost_and_free_no_frames
        ports_of_a_device_end_where_it_ends
        a_serial_port_on_the_bus_is_driven_by_its_ports_and_interrupt
        binding_an_interrupt_twice_is_refused
        an_interrupt_without_a_binding_cannot_be_acknowledged
        a_driver_that_dies_leaves_its_device_silent
        absent_and_kept_devices_are_not_granted
        what_the_platform_keeps_is_never_handed_out
        reserved_ports_are_out_of_reach_of_every_range;
    moving:
        two_services_move_in_one_commit
        three_services_move_in_one_commit
        eight_services_move_in_one_commit
        callers_queue_at_a_shut_gate_in_order
        a_shut_gate_ends_a_receive_and_lets_the_answer_out
        gates_shut_one_by_one
        a_rollback_returns_receivers_and_states
        a_rollback_ends_calls_in_hand_and_keeps_those_that_wait
        a_resumption_makes_the_commit_stale
        a_version_that_passed_its_service_on_stays_stopped
        finalising_raises_the_floor_and_a_rollback_does_not
        watchers_are_told_of_every_change;
    states:
        an_open_handover_commits_nothing
        a_closed_handover_takes_no_service_and_gives_no_deposit
        a_committed_handover_is_rolled_back_or_finalised_only
        a_finalised_handover_is_final
        an_aborted_handover_is_over
        a_handover_that_was_rolled_back_is_over;
    refusals:
        only_a_manager_decides
        only_the_versions_themselves_export_and_import
        a_service_exports_once_when_it_is_quiet
        an_unsealed_state_stops_import_and_commit
        a_version_without_the_label_is_refused
        what_does_not_fit_is_not_covered
        a_ninth_service_is_refused
        two_handovers_share_no_endpoint_and_no_process
        a_covered_endpoint_is_bound_by_nobody_else
        a_reply_that_is_hidden_stops_the_commit
        a_version_that_does_not_run_takes_nothing_over
        a_handover_is_made_whole_or_not_at_all;
    deposits:
        a_deposited_reply_is_answered_by_the_new_version
        a_rollback_returns_deposited_replies
        callers_learn_that_nobody_will_take_their_reply
        a_session_endpoint_passes_with_its_service
        a_rollback_returns_a_session_endpoint
        a_device_has_one_master_at_a_time
        a_sixty_fifth_deposit_is_refused
        what_cannot_pass_is_not_deposited;
    deaths:
        an_old_version_that_dies_before_its_export_stops_the_commit
        an_old_version_that_dies_after_its_export_does_not
        a_new_version_that_dies_before_the_commit_is_replaced
        a_new_version_that_dies_after_the_commit_is_replaced
        a_new_version_that_dies_after_the_commit_is_rolled_back
        a_manager_that_dies_before_the_commit_aborts
        a_commit_outlives_its_manager_and_is_adopted
        a_deadline_aborts_what_is_not_committed
        everything_comes_back_whoever_dies_first;
    durable:
        a_durable_endpoint_keeps_who_waits_for_the_next_receiver
        an_ordinary_endpoint_fails_who_waits
        a_received_call_ends_with_its_receiver
        a_caller_without_receiver_ends_at_its_deadline
        a_caller_that_is_gone_leaves_the_queue
        a_receiver_is_bound_where_there_is_none;
    journal:
        a_journal_gives_back_what_was_appended
        a_full_journal_refuses_and_keeps_what_it_has
        a_closed_journal_is_read_only
        an_append_that_is_too_long_is_refused
        a_journal_is_charged_and_refunded
        a_journal_takes_its_region_over
        a_journal_survives_its_writer;
    failing:
        no_memory_for_a_copy_changes_nothing
        no_memory_for_a_mint_changes_nothing
        no_memory_for_a_move_changes_nothing
        no_memory_for_a_pool_changes_nothing
        no_memory_for_a_small_region_changes_nothing
        no_memory_for_a_large_region_changes_nothing
        no_memory_for_an_endpoint_changes_nothing
        no_memory_for_a_notification_changes_nothing
        no_memory_for_a_mapping_changes_nothing
        no_memory_for_a_thread_changes_nothing
        no_memory_for_a_process_changes_nothing
        no_memory_for_a_handover_changes_nothing
        no_memory_for_finding_a_handover_changes_nothing
        no_memory_for_adopting_a_process_changes_nothing
        no_memory_for_a_journal_changes_nothing
        no_memory_for_a_recharge_changes_nothing
        no_memory_for_a_watcher_changes_nothing
        no_memory_for_received_capabilities_changes_nothing
        no_memory_for_a_reply_slot_changes_nothing
        alarms_signals_and_status_need_no_memory
        no_memory_for_a_revocation_changes_nothing;
};

/// Tests of the harness itself: each must be seen to fail. No plan names them but that of the harness's own tests.
pub const CONTROLS: &[Test] = tests! {
    control:
        control_passes
        control_fails
        control_hangs
        control_panics;
};

/// Tests that hold only where time goes by instructions.
pub const COUNTED: &[Test] = tests! {
    budgets:
        the_shares_of_a_budget_are_exact;
};

/// Tests of what is in the bundle only if the second signature scheme was asked for.
pub const SECOND: &[Test] = tests! {
    second:
        a_signature_of_the_second_scheme_is_told_from_flipped_ones;
};

/// The modules of [`TESTS`] that are run again with the kernel's page tables apart from ring 3's.
const ENTRIES: [&str; 5] = ["isolation", "state", "running", "messages", "budgets"];

/// Those of them that are too long where time goes by instructions.
const LONG: [&str; 1] = ["vector_registers_survive_preemption"];

/// What is run with KPTI and with a clock that goes by instructions, beside the whole of [`TESTS`] without.
pub fn counted_plan() -> Vec<&'static str> {
    let short = |test: &&Test| ENTRIES.contains(&test.module) && !LONG.contains(&test.name);
    let entries = TESTS.iter().filter(short);
    entries.chain(COUNTED).map(|test| test.name).collect()
}

/// SystemControl's slot.
pub const fn system() -> sila_abi::Slot {
    lab::SYSTEM
}

/// A process that reports the runner's own end and switches the machine off. It lives as long as the answer.
pub fn guard(lab: &Lab) -> Result<Child, Failure> {
    let child = lab.child()?;
    let line = b"DIED the runner ended before its tests did";
    let mut words = alloc::vec![line.len() as u64];
    words.extend(line.chunks(8).map(|chunk| {
        let mut raw = [0; 8];
        raw.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(raw)
    }));
    let caps = [sila_abi::protocol::layout::OWN_PROCESS, lab::TEST, lab::SYSTEM];
    child.start(probe::Act::Guard, &words, &caps)?;
    Ok(child)
}

/// The tests that a plan names, in its order.
pub fn planned(plan: &str) -> Vec<Result<&'static Test, String>> {
    let all = || TESTS.iter().chain(COUNTED).chain(SECOND).chain(CONTROLS);
    plan.lines()
        .filter(|line| !line.is_empty())
        .map(|line| all().find(|test| test.name == line).ok_or_else(|| line.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_many() {
        let names: Vec<_> =
            TESTS.iter().chain(COUNTED).chain(SECOND).chain(CONTROLS).map(|test| test.name).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name}");
        }
        assert!(TESTS.len() >= 40);
    }

    #[test]
    fn every_module_that_is_run_with_kpti_has_tests() {
        assert!(ENTRIES.iter().all(|module| TESTS.iter().any(|test| test.module == *module)));
    }

    #[test]
    fn a_plan_keeps_its_order_and_tells_unknown_names() {
        let plan = planned("rights_only_shrink\n\nnosuch\ncontrol_fails\n");
        let names: Vec<_> =
            plan.iter().map(|test| test.as_ref().map(|t| t.name).map_err(String::as_str)).collect();
        assert_eq!(names, [Ok("rights_only_shrink"), Err("nosuch"), Ok("control_fails")]);
    }
}

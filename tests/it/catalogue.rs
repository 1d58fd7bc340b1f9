//! Every reason has a row in `docs/errors.md` and a test that brings it about over a connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Which test brings a reason about: file below the repository, function.
const TESTED: &[(&str, &str, &str)] = &[
    ("TOPIC_NOT_FOUND", "tests/it/reasons.rs", "without_auto_create_a_topic_has_to_be_there"),
    ("TOPIC_REPLACED", "tests/it/reasons.rs", "commits_are_refused_with_a_reason"),
    ("TOPIC_EXISTS", "tests/it/reasons.rs", "topic_calls_are_refused_with_a_reason"),
    ("PARTITION_UNKNOWN", "tests/it/reasons.rs", "produce_is_refused_with_a_reason"),
    ("GROUP_NOT_FOUND", "tests/it/reasons.rs", "commits_are_refused_with_a_reason"),
    ("GROUP_EXISTS", "tests/it/members.rs", "groups_are_made_changed_and_described"),
    (
        "SHADOW_GROUP",
        "tests/it/members.rs",
        "a_shadow_group_stores_no_outputs_and_is_not_moved_while_it_has_members",
    ),
    ("GROUP_HAS_MEMBERS", "tests/it/members.rs", "outsiders_are_kept_out_while_members_live"),
    ("MEMBER_NAME_IN_USE", "tests/it/members.rs", "a_name_that_lives_is_refused_after_a_session_timeout"),
    ("INVALID_NAME", "tests/it/reasons.rs", "produce_is_refused_with_a_reason"),
    ("MALFORMED", "tests/it/reasons.rs", "produce_is_refused_with_a_reason"),
    ("RECORD_TOO_LARGE", "tests/it/reasons.rs", "produce_is_refused_with_a_reason"),
    ("BATCH_TOO_LARGE", "tests/it/reasons.rs", "produce_is_refused_with_a_reason"),
    ("REQUEST_TOO_LARGE", "tests/it/bodies.rs", "odd_bodies_are_refused_alike_on_both_roads"),
    (
        "OFFSET_TRUNCATED",
        "tests/it/failures.rs",
        "an_offset_that_is_no_longer_kept_names_the_first_one_that_is",
    ),
    ("OFFSET_AHEAD", "tests/it/reasons.rs", "fetch_is_refused_with_a_reason"),
    ("LOG_TRUNCATED", "tests/it/failures.rs", "a_reader_ahead_of_a_cut_history_is_told_where_it_diverges"),
    ("EXPECTED_OFFSET_MISMATCH", "tests/it/reasons.rs", "produce_is_refused_with_a_reason"),
    ("REQUEST_ID_REUSED", "tests/it/reasons.rs", "a_request_id_with_another_body_is_refused"),
    ("SEQUENCE_GAP", "tests/it/reasons.rs", "producers_are_refused_with_a_reason"),
    ("FENCED", "tests/it/reasons.rs", "producers_are_refused_with_a_reason"),
    ("PRODUCER_EXPIRED", "tests/it/reasons.rs", "producers_are_refused_with_a_reason"),
    ("DISK_FULL", "tests/it/failures.rs", "a_disk_without_room_refuses_records_until_there_is_some"),
    ("THROTTLED", "tests/it/failures.rs", "more_than_the_disk_takes_is_throttled_and_loses_nothing"),
    ("LIMIT_REACHED", "tests/it/failures.rs", "there_is_a_limit_to_topics_and_it_is_named"),
    ("STALLED", "tests/it/failures.rs", "a_message_that_does_not_arrive_whole_is_given_up"),
    ("PARTITION_FENCED", "tests/it/failures.rs", "a_failed_write_fences_its_partition_until_a_restart"),
    (
        "OUTCOME_UNKNOWN",
        "tests/it/failures.rs",
        "a_failed_flush_of_the_journal_leaves_the_outcome_open_and_ends_the_server",
    ),
    ("CORRUPT_DATA", "tests/it/failures.rs", "damage_is_reported_with_its_offsets_and_can_be_stepped_over"),
    ("READ_FAILED", "tests/it/failures.rs", "a_file_that_cannot_be_read_is_said_to_be_so"),
    ("SHUTTING_DOWN", "tests/it/streams.rs", "a_stopping_server_says_so_and_answers_what_was_sent"),
    ("RECOVERING", "tests/it/failures.rs", "while_it_recovers_a_server_says_so"),
    ("DEADLINE_EXCEEDED", "tests/it/failures.rs", "a_deadline_says_whether_something_may_have_happened"),
    // Whoever cancels hears nothing more; and nobody can make a fault of ours happen.
    ("CANCELLED", "src/grpc/status/tests.rs", "what_nobody_can_hear_over_a_connection_is_said_all_the_same"),
    ("INTERNAL", "src/grpc/status/tests.rs", "what_nobody_can_hear_over_a_connection_is_said_all_the_same"),
    ("METHOD_UNKNOWN", "tests/it/bodies.rs", "unknown_methods_encodings_and_timeouts_have_reasons"),
    ("ENCODING_UNSUPPORTED", "tests/it/bodies.rs", "unknown_methods_encodings_and_timeouts_have_reasons"),
    ("SERVICE_UNKNOWN", "tests/it/lifecycle.rs", "health_follows_the_server"),
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// Words in quotes that look like a reason.
fn reasons_in(source: &str) -> BTreeSet<String> {
    let quoted = source.split('"').skip(1).step_by(2);
    let looks =
        |word: &&str| word.len() > 5 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    quoted.filter(looks).map(str::to_owned).collect()
}

/// Rows of the catalogue: reason and status.
fn rows() -> BTreeMap<String, String> {
    let document = read("docs/errors.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = |row: &str| {
        let (reason, rest) = row.split_once("` | ").unwrap();
        (reason.to_owned(), rest.split(" |").next().unwrap().trim().to_owned())
    };
    rows.map(cells).collect()
}

/// `OUT_OF_RANGE` as `OutOfRange`.
fn camel(status: &str) -> String {
    let word = |word: &str| word[..1].to_owned() + &word[1..].to_lowercase();
    status.split('_').map(word).collect()
}

#[test]
fn what_the_code_can_say_is_what_the_catalogue_lists() {
    // The two places where reasons are spelt, up to their tests.
    let code = ["src/broker/error.rs", "src/grpc/status.rs"].map(read);
    let said: BTreeSet<String> =
        code.iter().flat_map(|source| reasons_in(source.split("mod tests").next().unwrap())).collect();
    assert!(said.len() > 25, "{said:?}");
    let listed: BTreeSet<String> = rows().into_keys().collect();
    assert_eq!(said, listed, "left: reasons in the code; right: rows of docs/errors.md");
}

#[test]
fn every_reason_has_a_test_that_names_it_and_its_status() {
    let rows = rows();
    let tested: BTreeSet<&str> = TESTED.iter().map(|(reason, ..)| *reason).collect();
    assert_eq!(
        tested,
        rows.keys().map(String::as_str).collect(),
        "left: tested; right: rows of docs/errors.md"
    );
    assert_eq!(tested.len(), TESTED.len(), "a reason is listed twice");
    for (reason, file, test) in TESTED {
        let source = read(file);
        let (before, body) =
            source.split_once(&format!("fn {test}(")).unwrap_or_else(|| panic!("{file} has no test {test}"));
        assert!(before.trim_end_matches("async ").trim_end().ends_with("test]"), "{test} is no test");
        let body = body.split("\n}\n").next().unwrap();
        assert!(body.contains(&format!("\"{reason}\"")), "{test} does not name {reason}");
        let code = format!("Code::{}", camel(&rows[*reason]));
        assert!(body.contains(&code), "{test} does not ask for {code}, the status of {reason}");
    }
}

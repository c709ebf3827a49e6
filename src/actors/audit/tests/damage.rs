//! What is left behind by a crash or done to the files by others, and how the log goes on.

use super::*;

#[tokio::test]
async fn an_unfinished_line_is_set_aside_and_put_on_record() {
    let dir = tempfile::tempdir().unwrap();
    life(&setup(dir.path()), 0..5).await;
    for torn in [&b"{\"seq\":99,\"at\":"[..], &[0; 700], b"{}\n{}\n"] {
        let path = newest(dir.path());
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(torn).unwrap();
        life(&setup(dir.path()), 5..6).await;
        let told = all(dir.path())
            .into_iter()
            .rfind(|record| record["event"] == "system.torn")
            .unwrap();
        assert_eq!(told["bytes"], torn.len());
        let aside = dir.path().join(told["moved_to"].as_str().unwrap());
        assert!(std::fs::read(aside).unwrap().ends_with(torn));
        whole(dir.path());
    }
}

#[tokio::test]
async fn a_segment_whose_head_was_not_finished_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    life(&setup(dir.path()), 0..5).await;
    let next = whole(dir.path()).last_seq + 1;
    let name = crate::domain::audit::check::segment_name(next);
    std::fs::write(dir.path().join(&name), "{\"seq\"").unwrap();
    life(&setup(dir.path()), 5..6).await;
    assert!(dir.path().join(format!("torn-{name}")).exists());
    whole(dir.path());
}

#[tokio::test]
async fn what_a_checkpoint_covers_is_never_cut_and_the_log_goes_on_behind_it() {
    let edit = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, text.replacen("\"at\":2,", "\"at\":7,", 1)).unwrap();
    };
    let cut = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(
            path,
            text.lines()
                .take(3)
                .map(|l| format!("{l}\n"))
                .collect::<String>(),
        )
        .unwrap();
    };
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    let ways: [&dyn Fn(&Path); 3] = [&edit, &cut, &remove];
    for (tamper, bad) in ways.into_iter().zip([4, 4, 1]) {
        let dir = tempfile::tempdir().unwrap();
        life(&setup(dir.path()), 0..5).await;
        let last = whole(dir.path()).last_seq;
        tamper(&newest(dir.path()));
        let before = std::fs::read(newest_or(dir.path())).ok();
        life(&setup(dir.path()), 5..8).await;
        let first = files::segments(dir.path()).unwrap().remove(0);
        assert!(before.is_none_or(|before| std::fs::read(first.path).unwrap() == before));
        let newest = files::segments(dir.path()).unwrap().pop().unwrap();
        assert!(newest.first > last - 1, "no number is given twice");
        assert!(
            all_of(&newest.path)
                .iter()
                .any(|record| record["event"] == "system.damaged")
        );
        let fault = check(dir.path()).fault.unwrap();
        assert_eq!(fault.seq, Some(bad), "{fault}");
    }
}

fn newest_or(dir: &Path) -> std::path::PathBuf {
    files::segments(dir)
        .unwrap()
        .pop()
        .map_or(dir.join("none"), |segment| segment.path)
}

fn all_of(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_file_that_is_removed_replaced_or_written_by_others_is_healed() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("audit");
    let keys = dir.path().join("keys");
    let setup = Setup {
        keys,
        ..setup(&inner)
    };
    let audit = Audit::start(setup.clone()).unwrap();
    some(&audit, 0..5).await;
    std::fs::remove_file(newest(&inner)).unwrap();
    some(&audit, 5..6).await;
    std::fs::remove_dir_all(&inner).unwrap();
    some(&audit, 6..7).await;
    let path = newest(&inner);
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    std::fs::write(&path, "nonsense\n").unwrap();
    some(&audit, 7..8).await;
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"{}\n")
        .unwrap();
    some(&audit, 8..9).await;
    assert!(audit.close(SOON).await);
    let at: Vec<i64> = records(&inner)
        .iter()
        .map(|r| r["at"].as_i64().unwrap())
        .collect();
    assert_eq!(
        at,
        (0..9).collect::<Vec<_>>(),
        "nothing acknowledged is lost"
    );
    let damages = all(&inner)
        .iter()
        .filter(|r| r["event"] == "system.damaged")
        .count();
    assert_eq!(damages, 4);
    assert!(
        whole(&inner)
            .notes
            .iter()
            .any(|note| note.contains("4 times damage"))
    );
}

#[tokio::test]
async fn a_file_cut_under_us_is_named_by_the_check_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::start(setup(dir.path())).unwrap();
    some(&audit, 0..5).await;
    let file = OpenOptions::new()
        .write(true)
        .open(newest(dir.path()))
        .unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    some(&audit, 5..6).await;
    assert!(audit.close(SOON).await);
    let fault = check(dir.path()).fault.unwrap();
    assert_eq!(fault.seq, Some(6), "{fault}");
    life(&setup(dir.path()), 6..7).await;
    assert_eq!(check(dir.path()).fault.unwrap().seq, Some(6));
}

#[tokio::test]
async fn the_log_of_earlier_versions_is_kept_under_another_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("audit.jsonl"), "{\"seq\":1}\n").unwrap();
    life(&setup(dir.path()), 0..1).await;
    let kept = std::fs::read_to_string(dir.path().join("unchained-audit.jsonl")).unwrap();
    assert_eq!(kept, "{\"seq\":1}\n");
    assert_eq!(all(dir.path())[0]["set_aside"], "unchained-audit.jsonl");
}

#[tokio::test]
async fn another_key_begins_another_segment_and_is_not_trusted_by_the_old() {
    let dir = tempfile::tempdir().unwrap();
    life(&setup(dir.path()), 0..3).await;
    let old = dir.path().join("old.pub");
    std::fs::rename(dir.path().join("keys").join(PUBLIC_KEY_NAME), &old).unwrap();
    std::fs::remove_dir_all(dir.path().join("keys")).unwrap();
    life(&setup(dir.path()), 3..5).await;
    assert_eq!(files::segments(dir.path()).unwrap().len(), 2);
    let report = Verify::of(dir.path(), Some(&old)).unwrap().run().unwrap();
    assert!(
        report
            .fault
            .unwrap()
            .what
            .contains("not signed by the trusted key")
    );
}

#[tokio::test]
async fn numbers_that_nobody_gave_are_not_continued() {
    let dir = tempfile::tempdir().unwrap();
    life(&setup(dir.path()), 0..3).await;
    let path = newest(dir.path());
    let text = std::fs::read_to_string(&path).unwrap();
    let far = text.replacen("{\"seq\":4,", "{\"seq\":9223372036854775807,", 1);
    std::fs::write(&path, far).unwrap();
    std::fs::write(dir.path().join("18446744073709551615.jsonl"), &text).unwrap();
    std::fs::write(dir.path().join("09223372036854775807.jsonl"), &text).unwrap();
    life(&setup(dir.path()), 3..4).await;
    let newest = files::segments(dir.path()).unwrap().pop().unwrap();
    assert!(newest.first < 100, "{newest:?}");
    assert_eq!(check(dir.path()).fault.unwrap().seq, Some(4));
}

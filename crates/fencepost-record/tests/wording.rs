//! Words and numbers: singular and plural, articles, separators, and what is left out when it is not known.

use fencepost_record::text::{self, Style};
use fencepost_record::*;

mod invented;

fn message(record: &Record) -> String {
    Message(record).to_string()
}

#[test]
fn articles_follow_how_a_number_is_spoken() {
    let cases = [
        (0, "a 0-byte"),
        (1, "a 1-byte"),
        (7, "a 7-byte"),
        (8, "an 8-byte"),
        (9, "a 9-byte"),
        (10, "a 10-byte"),
        (11, "an 11-byte"),
        (12, "a 12-byte"),
        (18, "an 18-byte"),
        (80, "an 80-byte"),
        (89, "an 89-byte"),
        (90, "a 90-byte"),
        (100, "a 100-byte"),
        (110, "a 110-byte"),
        (180, "a 180-byte"),
        (800, "an 800-byte"),
        (1100, "a 1100-byte"),
        (1800, "a 1800-byte"),
        (8000, "an 8000-byte"),
        (11_000, "an 11000-byte"),
        (18_446_744_073_709_551_615, "an 18446744073709551615-byte"),
    ];
    for (size, words) in cases {
        let mut record = invented::base(ErrorKind::HeapBufferOverflow);
        record.access = invented::access(AccessType::Write, 0x1000, Some(1));
        record.block = Some(Block {
            size,
            place: Where::After,
            distance: 3,
            state: BlockState::Live,
            ..Block::default()
        });
        let text = message(&record);
        assert!(
            text.starts_with(&format!("write of 1 byte at 0x1000, 3 bytes after {words} block")),
            "{text}"
        );
    }
}

#[test]
fn one_is_singular() {
    for (size, words) in [(Some(1), "read of 1 byte at"), (Some(2), "read of 2 bytes at"), (None, "read at")]
    {
        let mut record = invented::base(ErrorKind::UseAfterFree);
        record.access = invented::access(AccessType::Read, 0x2000, size);
        record.block = Some(invented::freed_block(24, Where::Inside, 1));
        assert_eq!(message(&record), format!("{words} 0x2000, 1 byte inside a freed 24-byte block"));
    }
}

#[test]
fn a_stack_overflow_speaks_as_rust_does() {
    let mut record = invented::base(ErrorKind::StackOverflow);
    record.access.address = Some(0x7000);
    assert_eq!(message(&record), "thread 'main' has overflowed its stack, at 0x7000");
    record.fault.thread.name = Text::EMPTY;
    assert_eq!(message(&record), "thread '<unnamed>' has overflowed its stack, at 0x7000");
    record.fault.thread.name = Text::new(b"a\nb\x1b[2J");
    assert_eq!(message(&record), "thread 'a\\nb\\u{1b}[2J' has overflowed its stack, at 0x7000");
}

/// Every kind with every access, place and state, with and without a block: one line, and never empty.
#[test]
fn every_combination_has_a_message_on_one_line() {
    use AccessType::{Execute, Free, None, Read, Realloc, Write};
    let mut count = 0;
    for kind in ErrorKind::ALL {
        for access in [Read, Write, Execute, Free, Realloc, None] {
            for place in [Where::Before, Where::Inside, Where::After] {
                for state in [BlockState::Live, BlockState::Freed, BlockState::Unknown] {
                    for address in [Option::None, Some(0), Some(u64::MAX)] {
                        let block = Block {
                            place,
                            state,
                            size: u64::MAX,
                            address: u64::MAX,
                            distance: u64::MAX,
                            ..Block::default()
                        };
                        for block in [Option::None, Some(block)] {
                            let access = Access { kind: access, address, size: Some(u32::MAX) };
                            let record = Record { access, block, ..invented::base(kind) };
                            let text = message(&record);
                            assert!(
                                text.len() > 8 && !text.contains('\n') && !text.ends_with([' ', ',']),
                                "{text:?}"
                            );
                            let mut page = String::new();
                            text::report(&record, &RawFrames(&record), Style::default(), &mut page).unwrap();
                            assert!(!page.contains("\n\n\n") && page.ends_with('\n'), "{page}");
                            count += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(count, 15 * 6 * 3 * 3 * 3 * 2);
}

#[test]
fn a_percentage_is_never_rounded_up_to_all_nor_down_to_nothing() {
    for (guarded, total, words) in [
        (12_350, 12_350, "12,350 of 12,350 blocks guarded (100.00%)"),
        (999_999, 1_000_000, "999,999 of 1,000,000 blocks guarded (99.99%)"),
        (1, 1_000_000, "1 of 1,000,000 blocks guarded (0.01%)"),
        (1, 1, "1 of 1 block guarded (100.00%)"),
        (2, 3, "2 of 3 blocks guarded (66.67%)"),
        (
            u64::MAX - 1,
            u64::MAX,
            "18,446,744,073,709,551,614 of 18,446,744,073,709,551,615 blocks guarded (99.99%)",
        ),
    ] {
        let text = Summary { total, guarded, ..Summary::default() }.to_string();
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn an_uncovered_run_is_said_plainly() {
    let none = Summary { total: 3, ..Summary::default() }.to_string();
    assert!(none.contains("nothing was guarded: 0 of 3 blocks"), "{none}");
    let empty = Summary::default().to_string();
    assert!(empty.contains("nothing was guarded: no block was asked for"), "{empty}");
}

#[test]
fn ages_are_in_the_unit_that_fits() {
    for (age, words) in [
        (0, "allocated less than 1 ms before by"),
        (999, "allocated 999 ms before by"),
        (1_000, "allocated 1.0 s before by"),
        (59_999, "allocated 59.9 s before by"),
        (60_000, "allocated 1 min 0 s before by"),
        (3_599_999, "allocated 59 min 59 s before by"),
        (3_600_000, "allocated 1 h 0 min before by"),
        (u64::MAX, "allocated 5,124,095,576,030 h 25 min before by"),
    ] {
        let mut record = invented::base(ErrorKind::HeapBufferOverflow);
        let mut block = invented::block(24, Where::After, 0);
        block.allocated.age_ms = age;
        record.block = Some(block);
        let mut page = String::new();
        text::body(&record, &RawFrames(&record), Style::default(), &mut page).unwrap();
        assert!(page.contains(words), "{page}");
    }
}

/// Text from outside must not move the terminal's cursor.
#[test]
fn a_report_holds_no_control_characters_from_outside() {
    let mut record = invented::base(ErrorKind::WildAccess);
    record.fault.thread.name = Text::new("evil\x1b]0;\u{202e}".as_bytes());
    record.modules.clear();
    assert!(record.modules.push(Module {
        start: invented::PROGRAM,
        end: invented::PROGRAM + 0x10_0000,
        path: Text::new(b"/a\rb\x07"),
        ..Module::default()
    }));
    let mut page = String::new();
    text::report(&record, &RawFrames(&record), Style::default(), &mut page).unwrap();
    assert!(!page.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{page:?}");
    assert!(page.contains("'evil\\u{1b}]0;\\u{202e}'") && page.contains("a\\rb\\u{7}"), "{page}");
}

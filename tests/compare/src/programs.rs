//! Whole programs: real libraries at ordinary work. Everything they read is made here from fixed numbers, so that each
//! run computes the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};

/// The names of all programs, in the order of the table.
const NAMES: [&str; 5] = ["compress", "json", "regex", "sqlite", "script"];

/// Runs the program of that name so many times over and gives the checksum of what it computed.
pub fn run(name: &str, times: &str) -> Result<u64, String> {
    let times: u64 = times.parse().map_err(|error| format!("{times}: {error}"))?;
    (0..times).try_fold(0, |sum, time| Ok(sum ^ once(name)?.rotate_left(time as u32 % 64)))
}

fn once(name: &str) -> Result<u64, String> {
    match name {
        "compress" => compress(),
        "json" => json(),
        "regex" => regex(),
        "sqlite" => sqlite().map_err(|error| error.to_string()),
        "script" => script().map_err(|error| error.to_string()),
        _ => Err(format!("no program {name}: there are {}", NAMES.join(", "))),
    }
}

/// Numbers that only look random: xorshift64*, G. Marsaglia and S. Vigna.
pub struct Numbers(u64);

impl Numbers {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit.max(1)
    }
}

const WORDS: [&str; 16] = [
    "page", "guard", "slot", "span", "fault", "trace", "block", "heap", "stack", "thread", "signal",
    "kernel", "write", "read", "free", "alloc",
];

fn text(bytes: usize, seed: u64) -> String {
    let mut numbers = Numbers::new(seed);
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(WORDS[numbers.below(16) as usize]);
        text.push(if numbers.below(12) == 0 { '\n' } else { ' ' });
    }
    text
}

fn sum_of(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Packs files of 32 KiB with deflate and unpacks them again.
fn compress() -> Result<u64, String> {
    let mut sum = 0;
    for file in 0..160 {
        let text = text(32 << 10, file);
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let packed = packer
            .write_all(text.as_bytes())
            .and_then(|()| packer.finish())
            .map_err(|error| format!("packing: {error}"))?;
        let mut back = String::new();
        flate2::read::ZlibDecoder::new(packed.as_slice())
            .read_to_string(&mut back)
            .map_err(|error| format!("unpacking: {error}"))?;
        if back != text {
            return Err(format!("file {file} came back changed"));
        }
        sum ^= sum_of((file, packed));
    }
    Ok(sum)
}

/// Parses a document of many records, groups them, and writes the result.
fn json() -> Result<u64, String> {
    let mut numbers = Numbers::new(3);
    let records: Vec<String> = (0..15_000)
        .map(|id| {
            let (name, kind) = (WORDS[numbers.below(16) as usize], WORDS[numbers.below(16) as usize]);
            let size = numbers.below(100_000);
            format!(
                r#"{{"id":{id},"name":"{name}-{id}","kind":"{kind}","size":{size},"tags":["{kind}","{name}"],"ok":{}}}"#,
                size % 2 == 0
            )
        })
        .collect();
    let document = format!("[{}]", records.join(","));
    let parsed: serde_json::Value = serde_json::from_str(&document).map_err(|error| error.to_string())?;
    let mut groups: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for record in parsed.as_array().ok_or("the document is a list")? {
        let kind = record["kind"].as_str().ok_or("every record has a kind")?.to_owned();
        groups.entry(kind).or_default().push(record.clone());
    }
    Ok(sum_of(serde_json::to_string(&groups).map_err(|error| error.to_string())?))
}

/// Compiles patterns and collects what they match in a log.
fn regex() -> Result<u64, String> {
    let log: String = text(600 << 10, 5);
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for word in WORDS {
        let pattern = format!(r"(?m)\b{word} (?P<second>[a-z]+) (?:(?P<third>[a-z]{{4}})|\w+)");
        let pattern = regex::Regex::new(&pattern).map_err(|error| error.to_string())?;
        for line in log.lines() {
            for groups in pattern.captures_iter(line) {
                let key =
                    groups.name("third").map_or("-", |third| third.as_str()).to_owned() + &groups["second"];
                *found.entry(key).or_default() += 1;
            }
        }
    }
    Ok(sum_of(found))
}

/// Fills two tables, makes an index and asks with joins: SQLite allocates by C's malloc.
fn sqlite() -> rusqlite::Result<u64> {
    let base = rusqlite::Connection::open_in_memory()?;
    base.execute_batch(
        "CREATE TABLE block (id INTEGER PRIMARY KEY, site TEXT, size INTEGER);
         CREATE TABLE site (name TEXT PRIMARY KEY, module TEXT);
         BEGIN;",
    )?;
    let mut numbers = Numbers::new(7);
    for word in WORDS {
        base.execute("INSERT INTO site VALUES (?1, ?2)", (word, text(40, numbers.below(99))))?;
    }
    for id in 0..12_000 {
        let site = WORDS[numbers.below(16) as usize];
        base.execute("INSERT INTO block VALUES (?1, ?2, ?3)", (id, site, numbers.below(5_000) as i64))?;
    }
    base.execute_batch("COMMIT; CREATE INDEX by_size ON block (size);")?;
    let mut sum = 0;
    for low in 0..1_500_i64 {
        let mut asked = base.prepare(
            "SELECT site.module, count(*), sum(size) FROM block JOIN site ON site.name = block.site
             WHERE size BETWEEN ?1 AND ?1 + 60 GROUP BY site.module ORDER BY 3",
        )?;
        let mut rows = asked.query([low * 3])?;
        while let Some(row) = rows.next()? {
            let found: (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            sum ^= sum_of((low, found));
        }
    }
    Ok(sum)
}

/// Runs a script in an interpreter: strings, lists, maps and calls.
fn script() -> Result<u64, Box<rhai::EvalAltResult>> {
    const TEXT: &str = r#"
        fn collatz(n) { let steps = 0; while n != 1 { n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 }; steps += 1; } steps }
        let by_length = #{};
        for n in 1..1500 {
            let key = `steps-${collatz(n)}`;
            if by_length.contains(key) { by_length[key].push(n); } else { by_length[key] = [n]; }
        }
        let text = "";
        for key in by_length.keys() { text += key + ":" + by_length[key].len() + ";"; }
        text
    "#;
    let mut engine = rhai::Engine::new();
    engine.set_max_operations(0);
    let text: String = engine.eval(TEXT)?;
    Ok(sum_of(text))
}

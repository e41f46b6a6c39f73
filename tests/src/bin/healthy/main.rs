//! Real crates at honest work under the guard: what they print must not depend on it.

use rayon::prelude::*;
use std::sync::Arc;

#[global_allocator]
static ALLOC: fencepost::GuardedAlloc = fencepost::GuardedAlloc::new();

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("regex") => regex(),
        Some("serde_json") => json(),
        Some("rayon") => rayon(),
        Some("tokio") => tokio(),
        other => {
            eprintln!("healthy: no such program: {other:?}");
            std::process::exit(2);
        }
    }
}

fn regex() {
    let text: String = (0..1500).map(|n| format!("key{n} = \"value {}\"; ", n * n)).collect();
    let pattern = regex::Regex::new(r#"(?P<key>\w+)\s*=\s*"(?P<value>[^"]*)""#).expect("a pattern");
    let found: Vec<(&str, &str)> = pattern
        .captures_iter(&text)
        .map(|captures| captures.extract::<2>().1)
        .map(|[key, value]| (key, value))
        .collect();
    let swapped = pattern.replace_all(&text, "$value: $key");
    let sum: usize = found.iter().map(|(key, value)| key.len() * value.len()).sum();
    println!("{} found, sum {sum}, {} bytes", found.len(), swapped.len());
}

fn json() {
    let value: serde_json::Value = (0..800)
        .map(|n| serde_json::json!({"id": n, "name": format!("name {n}"), "half": n as f64 / 2.0, "tags": ["x", n % 7]}))
        .collect();
    let text = serde_json::to_string_pretty(&value).expect("text");
    let back: serde_json::Value = serde_json::from_str(&text).expect("a document");
    assert_eq!(back, value);
    assert!(serde_json::from_str::<serde_json::Value>(&text[..text.len() / 2]).is_err());
    println!("{} bytes, {} items", text.len(), back.as_array().map_or(0, Vec::len));
}

fn rayon() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("a pool");
    pool.install(|| {
        let mut words: Vec<String> =
            (0..6000u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        words.par_sort();
        let lengths: usize = words.par_iter().map(String::len).sum();
        let parts: Vec<String> = words.par_chunks(64).map(|part| part.concat()).collect();
        println!("{} {lengths} {} {}", words[100], parts.len(), parts.iter().map(String::len).sum::<usize>());
    });
}

fn tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .expect("a runtime");
    let total = runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u64>>(8);
        let seen = Arc::new(tokio::sync::Mutex::new(std::collections::BTreeMap::new()));
        for task in 0..60u64 {
            let (sender, seen) = (sender.clone(), seen.clone());
            tokio::spawn(async move {
                for step in 0..10 {
                    seen.lock().await.insert(task * 10 + step, format!("{task} {step}"));
                    if step % 3 == 0 {
                        tokio::time::sleep(std::time::Duration::from_micros(200)).await;
                    }
                    sender.send(vec![task, step]).await.expect("a receiver");
                }
            });
        }
        drop(sender);
        let mut sum = 0;
        while let Some(message) = receiver.recv().await {
            sum += message.iter().sum::<u64>();
        }
        let seen = seen.lock().await;
        sum + seen.values().map(|text| text.len() as u64).sum::<u64>() + seen.len() as u64
    });
    println!("total {total}");
}

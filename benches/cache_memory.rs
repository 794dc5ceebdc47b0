use std::sync::Arc;
fn rss() -> u64 {
    let s = std::fs::read_to_string("/proc/self/statm").unwrap();
    s.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
fn main() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let before = rss();
        match std::env::args().nth(1).as_deref() {
            Some("u64") => {
                let cache: moka::future::Cache<u64, u32> =
                    moka::future::Cache::builder().max_capacity(1_000_000).build();
                for i in 0..1_000_000u64 {
                    cache.insert(i * 7919, 0).await;
                }
                cache.run_pending_tasks().await;
                println!("u64 u32 {} {}", cache.entry_count(), (rss() - before) / 1_000_000);
            }
            Some("u64arc") => {
                let cache: moka::future::Cache<u64, Arc<[u64; 6]>> =
                    moka::future::Cache::builder().max_capacity(1_000_000).build();
                for i in 0..1_000_000u64 {
                    cache.insert(i * 7919, Arc::new([i; 6])).await;
                }
                cache.run_pending_tasks().await;
                println!("u64 arc {} {}", cache.entry_count(), (rss() - before) / 1_000_000);
            }
            _ => {
                let cache: moka::future::Cache<u64, u32> =
                    moka::future::Cache::builder().max_capacity(1_000_000).initial_capacity(1_000_000).build();
                for i in 0..1_000_000u64 {
                    cache.insert(i * 7919, 0).await;
                }
                cache.run_pending_tasks().await;
                println!("initial cap {} {}", cache.entry_count(), (rss() - before) / 1_000_000);
            }
        }
    });
}

//! A load balancer as far as the gate knows one: it asks again and again, and remembers what it was told.

use crate::waiting::until;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

const EVERY: Duration = Duration::from_millis(20);

/// A word that differs from the one before it.
#[derive(Debug, Clone)]
pub struct Word {
    pub said: String,
    /// When it was asked for; it was said later.
    pub asked: SystemTime,
}

/// It asks from a thread of its own: whatever a test waits for meanwhile, it asks on.
pub struct Balancer {
    heard: Arc<Mutex<Vec<Word>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Balancer {
    pub fn start(gate: SocketAddr) -> Self {
        let (heard, ends) = (Arc::new(Mutex::new(Vec::<Word>::new())), Arc::new(AtomicBool::new(false)));
        let (told, end) = (heard.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let asked = SystemTime::now();
                if let Ok(said) = ask(gate) {
                    let mut heard = told.lock().unwrap();
                    if heard.last().is_none_or(|last| last.said != said) {
                        heard.push(Word { said, asked });
                    }
                }
                std::thread::sleep(EVERY); // the pace of its asking
            }
        });
        Self { heard, ends, thread: Some(thread) }
    }

    /// Waits until it was told these words, in this order, and no others.
    pub async fn hears(&self, words: &[&str]) -> Vec<Word> {
        until(&format!("a load balancer is told {words:?}"), || async {
            let heard = self.heard.lock().unwrap().clone();
            if heard.iter().map(|word| word.said.as_str()).eq(words.iter().copied()) { Ok(heard) } else { Err(format!("{heard:?}")) }
        })
        .await
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn ask(gate: SocketAddr) -> std::io::Result<String> {
    let within = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&gate, within)?;
    stream.set_read_timeout(Some(within))?;
    let mut word = String::new();
    stream.read_to_string(&mut word)?;
    Ok(word.trim().to_owned())
}

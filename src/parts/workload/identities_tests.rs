use std::net::SocketAddr;

use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::access::report::Standing;
use crate::status::identities::Voucher;

/// A pod that sends this to whoever asks, and tells what it was asked.
async fn pod(says: Vec<u8>) -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (at, heard) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(String::new())));
    let asked = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 1024];
            let length = stream.read(&mut head).await.unwrap_or_default();
            *asked.lock().unwrap() = String::from_utf8_lossy(&head[..length]).into_owned();
            stream.write_all(&says).await.ok();
        }
    });
    (at, heard)
}

fn http(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n\r\n{body}").into_bytes()
}

fn wanted() -> Wanted {
    let spec = json!({"auth": {"token": {
        "kubernetes": {"audience": "here"},
        "rules": [{"users": ["*"], "repositories": ["**"], "actions": ["pull"]}],
    }}});
    Wanted::of(&crate::parts::testing::resolved(&spec, &json!({}))).unwrap()
}

fn question(at: SocketAddr) -> Question {
    Question {
        pods: vec![at.ip()],
        port: at.port(),
        name: "team-a.registries.svc".to_owned(),
        leaf: None,
        proof: "Report proof".to_owned().into(),
        wanted: wanted(),
    }
}

fn report(cluster: Standing) -> String {
    serde_json::to_string(&Report { cluster: Some(cluster), ..Report::default() }).unwrap()
}

fn forbidden() -> Heard {
    Heard::Lacking([(Voucher::Cluster, Standing::Forbidden)].into())
}

#[tokio::test]
async fn a_pod_tells_the_operator_who_proves_that_it_asks() {
    let (at, asked) = pod(http(200, &report(Standing::Forbidden))).await;
    assert_eq!(ask(&question(at)).await, forbidden());
    let asked = asked.lock().unwrap().clone();
    assert!(asked.starts_with("GET /auth/token HTTP/1.0\r\n"), "{asked}");
    assert!(asked.contains("\r\nAuthorization: Report proof\r\n"), "{asked}");
}

#[tokio::test]
async fn what_is_no_report_says_nothing_and_takes_neither_room_nor_time() {
    let padded = format!("{}{}", report(Standing::Good), " ".repeat(10 << 20));
    for (says, silence) in [
        // One of an older version takes it for a login.
        (http(401, r#"{"errors": [{"code": "UNAUTHORIZED"}]}"#), Silence::Untold),
        (http(401, &report(Standing::Good)), Silence::Untold),
        (http(200, "<html>"), Silence::Untold),
        (http(200, r#"{"token": "t"}"#), Silence::Untold),
        (http(200, &padded), Silence::Untold),
        (http(200, &report(Standing::Good)[..9]), Silence::Untold),
        (b"SSH-2.0-x\r\n".to_vec(), Silence::Untold),
        (Vec::new(), Silence::Untold),
    ] {
        let (at, _) = pod(says.clone()).await;
        let heard = ask(&question(at)).await;
        assert_eq!(heard, Heard::Silent(silence), "{}", String::from_utf8_lossy(&says[..says.len().min(80)]));
    }
    let (at, _) = pod(http(200, &report(Standing::Good))).await;
    assert_eq!(ask(&question(at)).await, Heard::Good);
}

#[tokio::test]
async fn a_pod_that_hangs_or_is_gone_is_unreachable() {
    let gone = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    assert_eq!(ask(&question(gone)).await, Heard::Silent(Silence::Unreachable));
    let hanging = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let began = Instant::now();
    assert_eq!(ask(&question(hanging.local_addr().unwrap())).await, Heard::Silent(Silence::Unreachable));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

/// Another one may have taken its address: neither is it believed, nor is it told who asks.
#[tokio::test]
async fn who_does_not_show_the_registrys_certificate_is_not_asked() {
    let (at, asked) = pod(http(200, &report(Standing::Good))).await;
    let leaf = rcgen::generate_simple_self_signed(["team-a".to_owned()]).unwrap().cert.pem();
    assert_eq!(ask(&Question { leaf: Some(leaf), ..question(at) }).await, Heard::Silent(Silence::Unreachable));
    assert!(!asked.lock().unwrap().contains("proof"));
}

fn asked(heard: Heard) -> Asked {
    Asked { question: Id::default(), asker: 0, wanted: wanted(), heard, silent: 0 }
}

#[test]
fn what_is_lacking_is_asked_for_soon_and_what_says_nothing_less_and_less_often() {
    let mut asked = asked(Heard::Nothing);
    assert_eq!(asked.learn(forbidden()), (true, SOMETHING_LACKS));
    assert_eq!(asked.learn(forbidden()), (false, SOMETHING_LACKS));
    let silent: Vec<_> = (0..9).map(|_| asked.learn(Heard::Silent(Silence::Unreachable))).collect();
    let news: Vec<_> = silent.iter().map(|(is_news, _)| *is_news).collect();
    assert_eq!(
        news.iter().position(|is_news| *is_news),
        Some(4),
        "some looks that tell nothing do not count: {news:?}"
    );
    let waits: Vec<_> = silent.iter().map(|(_, wait)| wait.as_secs()).collect();
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    assert_eq!(asked.learn(Heard::Good), (true, ALL_IS_WELL));
}

#[tokio::test]
async fn another_manifest_begins_anew_and_other_pods_go_on_with_what_was_said() {
    let (hearings, queue, key) = (Hearings::default(), Queue::default(), Key::new("n", "team-a"));
    let (at, _) = pod(http(200, &report(Standing::Forbidden))).await;
    assert_eq!(hearings.get(&key, question(at), &queue), Heard::Nothing);
    for _ in 0..200 {
        if hearings.last(&key) == forbidden() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(hearings.get(&key, question(at), &queue), forbidden());
    assert_eq!(queue.depth().due, 1, "a pass tells it");
    let renewed = Question { name: "other".to_owned(), ..question(at) };
    assert_eq!(hearings.get(&key, renewed, &queue), forbidden(), "of the same manifest");
    let changed = Question { wanted: Wanted::default(), ..question(at) };
    assert_eq!(hearings.get(&key, changed, &queue), Heard::Nothing);
    hearings.forget(&key);
    assert_eq!(hearings.last(&key), Heard::Nothing);
}

/// Of many registries each has one.
#[test]
fn what_waits_to_ask_again_is_small() {
    let question = question(([127, 0, 0, 1], 1).into());
    let waiting = Hearings::default().ask_on(Key::new("team", "a"), 0, question, Queue::default());
    assert!(size_of_val(&waiting) <= 1024, "{} bytes", size_of_val(&waiting));
}

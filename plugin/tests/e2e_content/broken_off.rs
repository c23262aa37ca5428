//! Transfers that break off, on the way or because somebody ends them, and go on.

use std::fs;
use std::time::{Duration, Instant};

use testbed::Registry;
use testbed::image::Layer;

use crate::bed::{Bed, noise, said, sha256};
use crate::proxy::{Fault, Proxy, Rule};

const MEBIBYTE: u64 = 1 << 20;

/// An image with a layer of some 3 MiB: its digest, and that layer's.
async fn image(bed: &Bed, name: &str) -> (String, String) {
    let seed = name.bytes().map(u64::from).sum();
    let small = Layer::new().file("etc/small", 0o644, name);
    let digest = bed.pushes(name, vec![small, Layer::new().file("large", 0o644, noise(3 << 20, seed))]).await;
    (digest, bed.largest_layer(name).await.0)
}

fn once(of: String, fault: Fault) -> Rule {
    Rule { of, times: 1, fault }
}

/// Whether a registry has a blob, by what it stores.
fn has_blob(registry: &Registry, digest: &str) -> bool {
    registry.blob(digest).exists()
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off_also_where_nobody_knows_ranges() {
    let Some(bed) = Bed::new().await else { return };
    let (digest, layer) = image(&bed, "team/app:1").await;
    let of = format!("GET /v2/team/app/blobs/{layer}");
    for (number, (faults, ranges)) in [
        (vec![Fault::CutAnswer(MEBIBYTE)], 1),
        (vec![Fault::CutAnswer(MEBIBYTE), Fault::NoRange], 1),
        (vec![Fault::CutAnswer(MEBIBYTE), Fault::CutAnswer(MEBIBYTE)], 2),
    ]
    .into_iter()
    .enumerate()
    {
        let rules = faults.iter().map(|fault| once(of.clone(), *fault)).collect();
        let proxy = Proxy::before(bed.registry.address(), rules).await;
        let file = bed.path(&format!("{number}.tar"));
        let said = bed.asks_at(proxy.address, &["save", "team-a", "team/app:1", "-o", &file]).await;
        assert_eq!(said.code, Some(0), "{faults:?}: {}", said.err);
        assert!(said.err.contains("going on at byte "), "{}", said.err);
        let asked = proxy.asked(&of);
        assert_eq!(asked.iter().filter(|line| line.contains(" bytes=")).count(), ranges, "{asked:?}");
        let name = format!("again/app:{number}");
        bed.sees(&["load", "team-a", &name, "-i", &file]).await;
        assert_eq!(bed.digest(&name).await, digest, "{faults:?}");
    }
}

#[tokio::test]
async fn a_rest_with_other_bytes_is_refused_and_nothing_of_it_is_left() {
    let Some(bed) = Bed::new().await else { return };
    let (_, layer) = image(&bed, "team/app:1").await;
    let other = bed.another().await;
    let of = format!("GET /v2/team/app/blobs/{layer}");
    let proxy = async || {
        let rules = [Fault::CutAnswer(MEBIBYTE), Fault::OtherRest].map(|fault| once(of.clone(), fault));
        Proxy::before(bed.registry.address(), rules.into()).await
    };
    fs::create_dir(bed.file("out")).unwrap();
    let (there, to) = (bed.path("out/images.tar"), other.address().to_string());
    fs::write(&there, "of yesterday").unwrap();
    let into = ["copy", "team-a", "team/app:1", "team/app:1", "--to", "team-b", "--to-address", &to];
    for arguments in
        [&["save", "team-a", "team/app:1", "-o", &there][..], &["export", "team-a", "team/app:1", "-o", &there], &into]
    {
        let said = bed.asks_at(proxy().await.address, arguments).await;
        assert!(said.code == Some(1) && said.err.contains("its storage is damaged"), "{arguments:?}: {}", said.err);
    }
    assert_eq!(bed.listed("out"), ["images.tar"]);
    assert_eq!(fs::read_to_string(&there).unwrap(), "of yesterday");
    assert!(bed.listed("tmp").is_empty());
    assert!(has_blob(&bed.registry, &layer) && !has_blob(&other, &layer));
    assert_eq!(bed.asks_at(other.address(), &["tags", "team-a", "team/app"]).await.code, Some(1));
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_sent_again() {
    let Some(bed) = Bed::new().await else { return };
    let (digest, layer) = image(&bed, "team/app:1").await;
    let other = bed.another().await;
    let file = bed.path("images.tar");
    bed.sees(&["save", "team-a", "team/app:1", "-o", &file]).await;
    let cut = || vec![once("PUT /v2/".to_owned(), Fault::CutUpload(MEBIBYTE))];
    let proxy = Proxy::before(other.address(), cut()).await;
    let said = bed.asks_at(proxy.address, &["load", "team-a", "team/loaded:1", "-i", &file]).await;
    assert!(said.code == Some(0) && said.err.contains("trying again in 1 s"), "{}", said.err);
    let proxy = Proxy::before(other.address(), cut()).await;
    let to = proxy.address.to_string();
    let into = ["copy", "team-a", "team/app:1", "team/copied:1", "--to", "team-b", "--to-address", &to];
    let said = bed.asks(&into).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    for name in ["team/loaded:1", "team/copied:1"] {
        let said = bed.asks_at(other.address(), &["inspect", "team-a", name, "-o", "name"]).await;
        assert!(said.out.ends_with(&format!("@{digest}\n")), "{name}: {}{}", said.out, said.err);
    }
    assert!(has_blob(&other, &layer));
}

#[tokio::test]
async fn a_save_that_was_killed_goes_on_with_what_it_has() {
    let Some(bed) = Bed::new().await else { return };
    let (digest, layer) = image(&bed, "team/app:1").await;
    let folder = format!("{}/", bed.path("images"));
    let save = ["save", "team-a", "team/app:1", "-o", &folder];
    let of = format!("GET /v2/team/app/blobs/{layer}");
    let proxy = Proxy::before(bed.registry.address(), vec![once(of.clone(), Fault::Silence(MEBIBYTE))]).await;
    let mut killed = bed.command(proxy.address, &save).spawn().unwrap();
    let started = Instant::now();
    let unfinished = || bed.listed("images/blobs/sha256").into_iter().find(|name| name.ends_with(".part"));
    while !bed.file("images/blobs/sha256").exists() || unfinished().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    killed.kill().await.unwrap();
    assert!(unfinished().is_some() && !bed.file("images/index.json").exists());
    let whole = bed.listed("images/blobs/sha256").len() - 1;

    let proxy = Proxy::before(bed.registry.address(), Vec::new()).await;
    let said = bed.asks_at(proxy.address, &save).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    // Two layers and the configuration.
    assert_eq!(proxy.asked("GET /v2/team/app/blobs/").len(), 3 - whole);
    let names = bed.listed("images/blobs/sha256");
    assert_eq!(names.len(), 4, "{names:?}");
    for name in &names {
        let content = fs::read(bed.file("images/blobs/sha256").join(name)).unwrap();
        assert_eq!(sha256(&content), format!("sha256:{name}"));
    }
    bed.sees(&["load", "team-a", "again/app:1", "-i", &folder]).await;
    assert_eq!(bed.digest("again/app:1").await, digest);
}

#[tokio::test]
async fn whoever_reads_no_more_is_not_waited_for() {
    let Some(bed) = Bed::new().await else { return };
    image(&bed, "team/app:1").await;
    let script = "\"$@\" | head -c 1000 >/dev/null";
    let program = env!("CARGO_BIN_EXE_kubectl-registry");
    let mut command = tokio::process::Command::new("/bin/sh");
    let (address, kubeconfig) = (bed.registry.address().to_string(), bed.path("kubeconfig"));
    command.args(["-c", script, "sh", program, "save", "team-a", "team/app:1", "-o", "-"]);
    command.args(["--address", &address, "--kubeconfig", &kubeconfig]);
    let started = Instant::now();
    let said = said(command).await;
    assert!(said.err.contains("write standard output: Broken pipe") && !said.err.contains("going on"), "{}", said.err);
    // Five tries would take half a minute.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

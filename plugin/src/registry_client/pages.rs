//! Lists of names, page after page: repositories of a registry, tags of a repository.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use http::{StatusCode, Uri};
use serde_json::Value;

use super::connection::Way;
use super::{Answer, Client};

/// How many names are asked for at once: as many as the registry gives by default.
const PAGE: usize = 1000;
/// Bytes of a page. A name has 255 at most.
const MOST_BYTES: usize = 4 << 20;
/// Names in a list.
const MOST_NAMES: usize = 500_000;
/// Pages of a list: of a registry that gives ten at a time.
const MOST_PAGES: usize = 50_000;
/// Pages without a name, one after the other: of a registry that leaves out what somebody may not see.
const MOST_EMPTY: usize = 100;

/// Every repository, as the registry sorts them.
pub(crate) async fn repositories<W: Way>(client: &mut Client<W>) -> Result<Vec<String>> {
    let names = names(client, "/v2/_catalog", "repositories").await?;
    names.context("the registry has no catalog: GET /v2/_catalog is answered with 404")
}

/// Every tag of a repository; `None` if there is no such repository.
pub(crate) async fn tags<W: Way>(client: &mut Client<W>, repository: &str) -> Result<Option<Vec<String>>> {
    names(client, &format!("/v2/{repository}/tags/list"), "tags").await
}

async fn names<W: Way>(client: &mut Client<W>, path: &str, field: &str) -> Result<Option<Vec<String>>> {
    let mut names = Vec::new();
    let mut next = format!("{path}?n={PAGE}");
    let mut known = BTreeSet::new();
    let mut empty = 0;
    for _ in 0..MOST_PAGES {
        let mut answer = client.ask(&next, "application/json", MOST_BYTES).await?;
        // An administrator may have set a smaller page.
        if answer.status == StatusCode::BAD_REQUEST && answer.says("PAGINATION_NUMBER_INVALID") {
            path.clone_into(&mut next);
            answer = client.ask(&next, "application/json", MOST_BYTES).await?;
        }
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = client.accepted(answer)?;
        let page = page(&answer, field)?;
        if !page.is_empty() && names.ends_with(&page) {
            bail!("the registry gives one page again and again: {next} ends like the page before it");
        }
        empty = if page.is_empty() { empty + 1 } else { 0 };
        if empty > MOST_EMPTY {
            bail!("the registry gave {MOST_EMPTY} pages without a name, and says that there are more");
        }
        names.extend(page);
        if names.len() > MOST_NAMES {
            bail!("the list has more than {MOST_NAMES} names, which this command does not take");
        }
        let Some(link) = answer.header("link").and_then(link_to_next) else { return Ok(Some(names)) };
        let following = follow(&link, path)?;
        if following == next || !known.insert(following.clone()) {
            bail!("the registry leads in a circle: {following} is named as the next page a second time");
        }
        next = following;
    }
    bail!("the list has more than {MOST_PAGES} pages, which this command does not take")
}

/// The names of a page. The registry says `null` for none.
fn page(answer: &Answer, field: &str) -> Result<Vec<String>> {
    let body: BTreeMap<String, Value> = answer.json("the list")?;
    match body.get(field).unwrap_or(&Value::Null) {
        Value::Null => Ok(Vec::new()),
        Value::Array(names) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned).with_context(|| format!("a name in {field} is no text")))
            .collect(),
        _ => bail!("the list has no {field}"),
    }
}

/// The target with `rel=next` in a header `Link` (RFC 8288).
fn link_to_next(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some((_, from)) = rest.split_once('<') {
        let (target, after) = from.split_once('>')?;
        let (parameters, following) = outside_quotes(after, ',').unwrap_or((after, ""));
        if is_next(parameters) {
            return Some(target.to_owned());
        }
        rest = following;
    }
    None
}

fn is_next(parameters: &str) -> bool {
    let mut rest = parameters;
    while !rest.is_empty() {
        let (parameter, following) = outside_quotes(rest, ';').unwrap_or((rest, ""));
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let relations = value.trim().trim_matches('"').to_ascii_lowercase();
        if name.trim().eq_ignore_ascii_case("rel") && relations.split_ascii_whitespace().any(|one| one == "next") {
            return true;
        }
        rest = following;
    }
    false
}

/// What stands before the first of these characters that is not between quotes, and what behind it.
fn outside_quotes(text: &str, separator: char) -> Option<(&str, &str)> {
    let mut is_quoted = false;
    let end = text.char_indices().find(|(_, character)| {
        is_quoted ^= *character == '"';
        *character == separator && !is_quoted
    });
    end.map(|(index, _)| (&text[..index], &text[index + separator.len_utf8()..]))
}

/// Path and query of the next page. Whatever host it names, it is asked for here: the login goes nowhere else.
fn follow(link: &str, path: &str) -> Result<String> {
    let target: Uri = absolute(link, path)
        .parse()
        .with_context(|| format!("the registry names a next page that is no address: {link:?}"))?;
    match target.path_and_query() {
        Some(found) if found.path() == path && found.query().is_some() => Ok(found.to_string()),
        _ => bail!("the registry names {link:?} as the page behind {path}"),
    }
}

/// A link as seen from the list's own path (RFC 3986, 5.2), as far as it can lead to the same list.
fn absolute(link: &str, path: &str) -> String {
    let is_whole = link.is_empty() || link.starts_with('/') || link.contains("://");
    match (is_whole, path.rsplit_once('/')) {
        (false, _) if link.starts_with('?') => format!("{path}{link}"),
        (false, Some((folder, _))) => format!("{folder}/{link}"),
        _ => link.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, answer, client};
    use super::*;

    #[test]
    fn the_next_page_is_found_in_a_link() {
        for (header, next) in [
            (r#"</v2/_catalog?last=b&n=2>; rel="next""#, Some("/v2/_catalog?last=b&n=2")),
            ("</a?b>;rel=next", Some("/a?b")),
            (r#"</a?b>; title="x, <y>; rel=next"; rel="prev", </c?d>; Rel="last NEXT""#, Some("/c?d")),
            (r#"<https://h:5/a?b=c,d>; rel="next""#, Some("https://h:5/a?b=c,d")),
            (r#"</a?b>; rel="prev""#, None),
            (r#"</a?b>; rel="nextish""#, None),
            ("</a?b", None),
            ("/a?b; rel=next", None),
            ("<", None),
            ("", None),
        ] {
            assert_eq!(link_to_next(header).as_deref(), next, "{header}");
        }
    }

    #[test]
    fn a_link_leads_nowhere_but_to_the_same_list() {
        let path = "/v2/_catalog";
        for (link, next) in [
            ("/v2/_catalog?last=a%2Fb&n=2", Some("/v2/_catalog?last=a%2Fb&n=2")),
            ("http://elsewhere.test/v2/_catalog?last=a", Some("/v2/_catalog?last=a")),
            ("/v2/_catalog", None),
            ("/v2/other?last=a", None),
            ("//elsewhere.test/v2/_catalog?last=a", None),
            ("?last=a", Some("/v2/_catalog?last=a")),
            ("_catalog?last=a", Some("/v2/_catalog?last=a")),
            ("other?last=a", None),
            ("../secrets?last=a", None),
            ("", None),
            ("/v2/_catalog?last=a b", None),
            ("/v2/_catalog?last=a\r\nx: y", None),
        ] {
            assert_eq!(follow(link, path).ok().as_deref(), next, "{link}");
        }
    }

    fn page_of(names: std::ops::Range<usize>, next: Option<&str>) -> String {
        let names: Vec<_> = names.map(|number| format!("r{number:05}")).collect();
        let link = next.map_or(String::new(), |next| format!("link: <{next}>; rel=\"next\"\r\n"));
        answer("200 OK", &link, &serde_json::json!({"repositories": names, "tags": names, "name": "a"}).to_string())
    }

    #[tokio::test]
    async fn all_pages_are_followed() {
        let script = Script::of((0..10).map(|page: usize| {
            let next = format!("/v2/a/tags/list?last=r{:05}&n=1000", page * 1000 + 999);
            page_of(page * 1000..(page + 1) * 1000, (page < 9).then_some(next.as_str()))
        }));
        let found = tags(&mut client(&script), "a").await.unwrap().unwrap();
        assert_eq!((found.len(), found[9_999].as_str()), (10_000, "r09999"));
        assert_eq!(script.lines()[0], "GET /v2/a/tags/list?n=1000 HTTP/1.1");
        assert_eq!(script.lines()[9], "GET /v2/a/tags/list?last=r08999&n=1000 HTTP/1.1");
    }

    #[tokio::test]
    async fn a_registry_with_smaller_pages_is_asked_for_those() {
        let refused = r#"{"errors": [{"code": "PAGINATION_NUMBER_INVALID", "message": "invalid number"}]}"#;
        let script = Script::of([
            answer("400 Bad Request", "", refused),
            page_of(0..10, Some("/v2/_catalog?last=r00009&n=10")),
            page_of(10..12, None),
        ]);
        assert_eq!(repositories(&mut client(&script)).await.unwrap().len(), 12);
        assert_eq!(script.lines()[1], "GET /v2/_catalog HTTP/1.1");
    }

    #[tokio::test]
    async fn no_names_are_no_fault_and_no_repository_is_told() {
        let empty = Script::of([answer("200 OK", "", r#"{"name": "a", "tags": null}"#)]);
        assert_eq!(tags(&mut client(&empty), "a").await.unwrap(), Some(Vec::new()));
        let unknown = Script::of([answer("404 Not Found", "", "")]);
        assert_eq!(tags(&mut client(&unknown), "a").await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_list_or_never_ends_is_refused() {
        let same = "/v2/_catalog?last=a&n=1000";
        let other = "/v2/_catalog?last=b&n=1000";
        let circle = (0..4).map(|page| page_of(page..page + 1, Some(if page % 2 == 0 { same } else { other })));
        // Each time by another name.
        let stays = (0..3).map(|page| page_of(0..2, Some(&format!("/v2/_catalog?last={page}"))));
        let empty = (0..200).map(|page| page_of(0..0, Some(&format!("/v2/_catalog?last={page}"))));
        for (answers, words) in [
            (vec![answer("200 OK", "", "{}")], None),
            (vec![answer("200 OK", "", "[]")], Some("not what it should be")),
            (vec![answer("200 OK", "", r#"{"repositories": {}}"#)], Some("has no repositories")),
            (vec![answer("200 OK", "", r#"{"repositories": [1]}"#)], Some("is no text")),
            (vec![answer("200 OK", "", "<html>")], Some("not what it should be")),
            (vec![page_of(0..1, Some(same)), page_of(1..2, Some(same))], Some("leads in a circle")),
            (circle.collect(), Some("leads in a circle")),
            (stays.collect(), Some("one page again and again")),
            (empty.collect(), Some("100 pages without a name")),
            (vec![page_of(0..1, Some(same)), page_of(0..0, None)], None),
            (vec![page_of(0..1, Some("https://elsewhere.test/"))], Some("as the page behind /v2/_catalog")),
        ] {
            let script = Script::of(answers.clone());
            let found = repositories(&mut client(&script)).await.map_err(|error| format!("{error:#}"));
            match words {
                Some(words) => {
                    assert!(found.as_ref().is_err_and(|error| error.contains(words)), "{answers:?}: {found:?}");
                }
                None => assert!(found.as_ref().is_ok_and(|found| found.len() < 2), "{answers:?}: {found:?}"),
            }
        }
    }
}

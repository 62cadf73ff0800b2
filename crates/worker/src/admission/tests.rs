use std::time::Duration;

use relay_auth::Policy;
use relay_model::{Path, Scope};

use super::*;

const DAY: Duration = Duration::from_secs(20_000 * 24 * 3_600);
const SECOND: Duration = Duration::from_secs(1);

fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY
}

fn open() -> Policy {
    Policy::public(Scope::everything(), Scope::everything())
}

fn permit() -> Permit {
    open().admit("/room", wall()).unwrap()
}

fn permit_of(subject: &str) -> Permit {
    open().with_subject(subject).admit("/room", wall()).unwrap()
}

fn permit_until(at: SystemTime) -> Permit {
    open().until(at).admit("/room", wall()).unwrap()
}

fn asked() -> (SessionAdmission, Instant) {
    let (mut admission, now) = (SessionAdmission::default(), Instant::now());
    assert!(admission.ask(now));
    (admission, now)
}

fn admitted(permit: Permit) -> SessionAdmission {
    let (mut admission, _) = asked();
    assert_eq!(admission.handle_answer(Ok(permit.clone()), wall()), Some(Ok(permit)));
    admission
}

fn revoked() -> CloseReason {
    CloseReason::new(SessionCode::UNAUTHORIZED, "revoked")
}

fn denied(admission: &mut SessionAdmission, answer: Result<Permit, Denial>) -> Rejection {
    let rejection = admission.handle_answer(answer, wall()).unwrap().unwrap_err();
    assert_eq!(admission.closing(), Some(&rejection.close));
    assert!(admission.has_ended() && admission.permit().is_none());
    rejection
}

#[test]
fn gate_is_asked_once() {
    let (mut admission, now) = asked();
    assert!(admission.is_waiting() && !admission.ask(now));
    let mut closing = SessionAdmission::default();
    closing.close(revoked());
    assert!(!closing.ask(now), "a closing session needs no permit");
}

#[test]
fn first_answer_counts() {
    let mut admission = admitted(permit_of("alice"));
    assert!(admission.is_open());
    assert_eq!(admission.handle_answer(Ok(permit_of("bob")), wall()), None);
    assert_eq!(admission.handle_answer(Err(Denial::Unavailable), wall()), None);
    assert_eq!(admission.permit().and_then(Permit::subject), Some("alice"));
    assert_eq!(SessionAdmission::default().handle_answer(Ok(permit()), wall()), None, "not asked for");
}

#[test]
fn denials_close_with_their_code() {
    for (denial, code) in [
        (Denial::Refused(Refusal::Unauthorized), SessionCode::UNAUTHORIZED),
        (Denial::Expired, SessionCode::UNAUTHORIZED),
        (Denial::Unavailable, SessionCode::INTERNAL),
    ] {
        let rejection = denied(&mut asked().0, Err(denial));
        assert_eq!(rejection.denial, denial);
        assert_eq!(rejection.close, CloseReason::new(code, &denial.to_string()));
    }
}

#[test]
fn answer_after_the_deadline_is_ignored() {
    let (mut admission, now) = asked();
    let until = now + limits::AUTH_TIMEOUT;
    assert_eq!(admission.deadline(), Some(until));
    assert_eq!(admission.handle_timeout(until - Duration::from_nanos(1)), None);
    let rejection = admission.handle_timeout(until).unwrap();
    assert_eq!(rejection.close, CloseReason::new(SessionCode::TIMEOUT, "authorization timed out"));
    assert_eq!(admission.handle_answer(Ok(permit()), wall()), None);
    assert_eq!((admission.handle_timeout(until), admission.deadline()), (None, None));
}

#[test]
fn expired_permit_is_denied() {
    assert_eq!(denied(&mut asked().0, Ok(permit_until(wall()))).denial, Denial::Expired);
    assert!(admitted(permit_until(wall() + SECOND)).is_open());
}

#[test]
fn session_expires_with_its_permit() {
    let mut admission = admitted(permit_until(wall() + SECOND));
    assert!(!admission.expire(wall()));
    assert!(admission.expire(wall() + SECOND));
    assert_eq!(admission.closing(), Some(&CloseReason::new(SessionCode::UNAUTHORIZED, "expired")));
    assert!(!admission.expire(wall() + SECOND), "it is closing already");
    assert!(!admitted(permit()).expire(wall() + DAY), "unlimited");
}

#[test]
fn revision_replaces_the_expiry() {
    let first = wall() + SECOND;
    let mut admission = admitted(permit_until(first));
    let revision = admission.revise(permit_until(first + SECOND));
    assert_eq!(revision, Revision::Replaced { expired_at: Some(first), changes_scopes: false });
    assert!(!admission.expire(first));
    assert!(admission.expire(first + SECOND));
}

#[test]
fn revision_of_scopes_is_reported() {
    let mut admission = admitted(permit());
    let cams = Scope::of([Path::parse("room/cam").unwrap()]);
    let narrow = Policy::public(cams.clone(), cams).admit("/room", wall()).unwrap();
    let revision = admission.revise(narrow.clone());
    assert_eq!(revision, Revision::Replaced { expired_at: None, changes_scopes: true });
    assert_eq!(admission.permit(), Some(&narrow));
}

#[test]
fn revision_to_another_identity_must_close() {
    let other_root = open().admit("/lobby", wall()).unwrap();
    let relay = open().for_peers().admit("/room", wall()).unwrap();
    for other in [permit_of("mallory"), other_root, relay] {
        let mut admission = admitted(permit());
        assert_eq!(admission.revise(other), Revision::MustClose);
        let close = CloseReason::new(SessionCode::UNAUTHORIZED, IDENTITY_CHANGED);
        assert_eq!(admission.closing(), Some(&close));
        assert_eq!(admission.permit(), Some(&permit()), "the permit stays");
        assert_eq!(admission.revise(permit()), Revision::Ignored);
    }
}

#[test]
fn revision_before_admission_is_ignored() {
    assert_eq!(asked().0.revise(permit()), Revision::Ignored);
    assert_eq!(SessionAdmission::default().revise(permit()), Revision::Ignored);
}

#[test]
fn revocation_ends_matching_permits_only() {
    let bob = PermitFilter::new(|permit| permit.subject() == Some("bob"));
    let (mut of_alice, mut of_bob) = (admitted(permit_of("alice")), admitted(permit_of("bob")));
    assert!(!of_alice.revoke_where(&bob, &revoked()));
    assert!(of_bob.revoke_where(&bob, &revoked()));
    assert!(!of_bob.revoke_where(&bob, &revoked()), "once");
    assert_eq!((of_alice.closing(), of_bob.closing()), (None, Some(&revoked())));
    assert!(of_alice.revoke(CloseReason::new(SessionCode(9), "enough")));
    assert!(!of_bob.revoke(CloseReason::new(SessionCode(9), "enough")), "the first reason counts");
}

#[test]
fn answer_based_on_a_revoked_permit_is_rejected() {
    let bob = PermitFilter::new(|permit| permit.subject() == Some("bob"));
    let (mut of_alice, mut of_bob) = (asked().0, asked().0);
    for admission in [&mut of_alice, &mut of_bob] {
        assert!(!admission.revoke_where(&bob, &revoked()));
    }
    let rejection = denied(&mut of_bob, Ok(permit_of("bob")));
    assert_eq!(rejection, Rejection { denial: Refusal::Unauthorized.into(), close: revoked() });
    assert!(of_alice.handle_answer(Ok(permit_of("alice")), wall()).unwrap().is_ok());
}

#[test]
fn panicking_filter_matches_every_permit() {
    let filter = PermitFilter::new(|_| panic!("injected"));
    assert!(admitted(permit()).revoke_where(&filter, &revoked()));
    let (mut admission, _) = asked();
    admission.revoke_where(&filter, &revoked());
    assert_eq!(denied(&mut admission, Ok(permit())).close, revoked());
}

#[test]
fn closing_session_takes_no_answer() {
    let (mut admission, _) = asked();
    admission.close(revoked());
    assert_eq!(admission.handle_answer(Ok(permit()), wall()), None);
    assert_eq!(admission.end(), AdmissionEnd { permit: None, is_owed: true });
}

#[test]
fn end_is_owed_once_and_only_if_asked() {
    let mut admission = admitted(permit());
    assert_eq!(admission.end(), AdmissionEnd { permit: Some(permit()), is_owed: true });
    assert_eq!(admission.end(), AdmissionEnd { permit: None, is_owed: false });
    assert_eq!(SessionAdmission::default().end(), AdmissionEnd { permit: None, is_owed: false });
}

#[test]
fn refused_session_keeps_its_permit_until_its_end() {
    let mut admission = admitted(permit());
    admission.refuse(revoked());
    assert!(admission.has_ended() && !admission.is_open() && admission.permit().is_none());
    assert_eq!(admission.end().permit, Some(permit()));
}

use super::*;
use crate::identity::RootState;
use std::os::unix::fs::PermissionsExt;

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn states(directory: &Path) -> Vec<RootState> {
    let roots = Roots::read(directory, &domain()).unwrap();
    roots.status(SystemTime::now()).iter().map(|root| root.state).collect()
}

#[test]
fn a_ca_is_never_overwritten_and_its_key_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let [_, key] = Roots::init(directory.path(), &domain()).unwrap();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&key).unwrap();
    assert!(matches!(Roots::init(directory.path(), &domain()), Err(CaError::Exists(_))));
    assert_eq!(before, fs::read(&key).unwrap());
}

#[test]
fn the_next_root_is_trusted_at_once_and_active_after_the_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    Roots::init(directory, &domain()).unwrap();
    Roots::rotate(directory, &domain(), Duration::from_secs(3600)).unwrap();
    assert_eq!(states(directory), [RootState::Active, RootState::Next]);
    let roots = Roots::read(directory, &domain()).unwrap();
    let now = SystemTime::now();
    assert_eq!(roots.trusted(now).len(), 2);
    assert_eq!(roots.active(now + Duration::from_secs(3700)).unwrap().number, 2);
    let again = Roots::rotate(directory, &domain(), Duration::ZERO);
    assert!(matches!(again, Err(CaError::NextNotInUse(_))));
}

#[test]
fn old_roots_are_retired_when_nothing_of_them_can_be_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    Roots::init(directory, &domain()).unwrap();
    Roots::rotate(directory, &domain(), Duration::ZERO).unwrap();
    assert_eq!(states(directory), [RootState::Old, RootState::Active]);
    let refused = Roots::retire(directory, &domain(), Duration::from_secs(3600));
    assert!(matches!(refused, Err(CaError::OldInUse { .. })));
    assert_eq!(Roots::retire(directory, &domain(), Duration::ZERO).unwrap().len(), 2);
    assert_eq!(states(directory), [RootState::Active]);
    assert!(Roots::retire(directory, &domain(), Duration::ZERO).unwrap().is_empty());
}

#[test]
fn a_root_without_its_key_is_trusted_but_not_issued_from() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    Roots::init(directory, &domain()).unwrap();
    let [_, key] = Roots::rotate(directory, &domain(), Duration::ZERO).unwrap();
    fs::remove_file(key).unwrap();
    let roots = Roots::read(directory, &domain()).unwrap();
    let now = SystemTime::now();
    assert_eq!(roots.trusted(now).len(), 2);
    assert_eq!(roots.active(now).unwrap().number, 1);
}

#[test]
fn a_ca_that_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Roots::read(directory.path(), &domain());
    assert!(matches!(missing, Err(CaError::Unreadable { .. })));
    let [certificate, key] = Roots::init(directory.path(), &domain()).unwrap();
    let other = "other.org".parse().unwrap();
    let foreign = Roots::read(directory.path(), &other);
    assert!(matches!(foreign, Err(CaError::Unusable { .. })));
    let elsewhere = tempfile::tempdir().unwrap();
    let [_, other_key] = Roots::init(elsewhere.path(), &domain()).unwrap();
    fs::copy(other_key, &key).unwrap();
    let error = Roots::read(directory.path(), &domain()).err().unwrap();
    assert!(error.to_string().contains("does not belong to the key"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Roots::read(directory.path(), &domain()).err().unwrap();
    assert!(error.to_string().contains("chmod 600"), "{error}");
    fs::write(certificate, "nonsense").unwrap();
    assert!(Roots::read(directory.path(), &domain()).is_err());
}

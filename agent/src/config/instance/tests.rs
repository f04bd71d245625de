use super::*;
use crate::config::words::tests::assert_own_words;

#[test]
fn which_agent_a_file_is_about_is_told_whatever_else_is_wrong_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sheath.yaml");
    std::fs::write(&path, "instance: blue\nrunDir: /run/x\nnode: 7\nnonsense: [a]\n").unwrap();
    let instance = Instance::of_file(&path).unwrap();
    assert_eq!(instance, Instance::new("blue", Path::new("/run/x")).unwrap());
    std::fs::write(&path, "node: a\n").unwrap();
    assert_eq!(Instance::of_file(&path).unwrap().name, DEFAULT_INSTANCE);
    std::fs::write(&path, "instance: [").unwrap();
    assert_own_words(&Instance::of_file(&path).unwrap_err().to_string(), "an instance");
}

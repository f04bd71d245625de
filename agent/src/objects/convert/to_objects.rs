//! A configuration file as objects.

use serde_json::{Value, json};

use super::keys::{Keys, list, mapping, object_name, period, put, take, text};
use super::{ConvertError, Converted, IN_FILE};
use crate::objects::model::{Kind, Object};
use crate::objects::schema::{GROUP, VERSION};

type Converting<T> = Result<T, ConvertError>;

/// The label by which the policy of a workload selects pods.
const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Keys of the file that objects are made of.
const CONVERTED: [&str; 7] = [
    "trustDomain",
    "trustDomains",
    "identity",
    "tlsContexts",
    "workloads",
    "externalPeers",
    "peers",
];
/// As many IDs are in a list of a rule.
const LONGEST_LIST: usize = 64;

/// The objects that a configuration file comes to, in a namespace.
///
/// # Errors
/// What has no equivalent, and would be missed.
pub fn to_objects(file: &Value, namespace: &str) -> Converting<Converted> {
    let mut writer = Writer { namespace, converted: Converted::default() };
    writer.trust_domain(file)?;
    for context in list(&file["tlsContexts"]) {
        writer.tls_context(context)?;
    }
    for workload in list(&file["workloads"]) {
        writer.workload(workload)?;
    }
    for peer in list(&file["externalPeers"]) {
        writer.external_peer(peer)?;
    }
    Ok(writer.converted)
}

struct Writer<'n> {
    namespace: &'n str,
    converted: Converted,
}

/// An object that is being made.
struct Draft {
    kind: Kind,
    name: String,
    spec: Keys,
    /// What only the file has.
    in_file: Keys,
    notes: Vec<String>,
}

impl Draft {
    fn new(kind: Kind, name: &str, spec: Keys) -> Self {
        Self { kind, name: name.to_owned(), spec, in_file: Keys::new(), notes: Vec::new() }
    }
}

impl Writer<'_> {
    /// Takes an object, if it makes sense. `at` is where it comes from.
    fn add(&mut self, at: &str, draft: Draft) -> Converting<()> {
        check_name(at, &draft.name)?;
        let is_same = |object: &Value| {
            object["kind"] == draft.kind.name() && object["metadata"]["name"] == *draft.name
        };
        if self.converted.values().any(is_same) {
            let reason = format!("another {} would also be called `{}`", draft.kind, draft.name);
            return Err(ConvertError::at(at, reason));
        }
        let mut metadata = Keys::new();
        metadata.insert("name".to_owned(), draft.name.into());
        if draft.kind != Kind::TrustDomain {
            metadata.insert("namespace".to_owned(), self.namespace.into());
        }
        if !draft.in_file.is_empty() {
            let kept = Value::Object(draft.in_file).to_string();
            metadata.insert("annotations".to_owned(), json!({ IN_FILE: kept }));
        }
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": draft.kind.name(),
            "metadata": metadata,
            "spec": draft.spec,
        });
        Object::read(draft.kind, &object)
            .map_err(|malformed| ConvertError::at(at, malformed.to_string()))?;
        self.converted.add(draft.notes, object);
        Ok(())
    }

    fn trust_domain(&mut self, file: &Value) -> Converting<()> {
        let mut draft = Draft::new(Kind::TrustDomain, "default", Keys::new());
        draft.spec.insert("trustDomain".to_owned(), file["trustDomain"].clone());
        let mut identity = mapping(&file["identity"]);
        let source = text(&file["identity"]["source"]);
        let is_default = |name: &str| source == name || (source.is_empty() && identity.len() == 1);
        if identity.contains_key("spire") && is_default("spire") {
            draft.spec.insert("issuer".to_owned(), json!({ "spire": identity["spire"] }));
        } else if identity.contains_key("controller") && is_default("controller") {
            draft.spec.insert("issuer".to_owned(), json!({ "controller": {} }));
        } else if !identity.is_empty() {
            draft
                .notes
                .push("`identity`: pods have their identities from the controller.".to_owned());
        }
        let identity = take(&mut identity, &["source", "ca", "files", "spire", "controller"]);
        put(&mut draft.in_file, "identity", identity);
        let (mut federated, mut kept) = (Vec::new(), Keys::new());
        for entry in list(&file["trustDomains"]) {
            let (domain, at) =
                (text(&entry["name"]), format!("trustDomains[{}]", text(&entry["name"])));
            if entry["name"] == file["trustDomain"] || entry["bundle"].is_null() {
                return Err(ConvertError::at(
                    at,
                    "CRLs without a bundle, as for the cluster's own trust domain, have no equivalent",
                ));
            }
            let mut object = json!({ "name": domain, "configMap": domain });
            let what = format!("ConfigMap `{domain}` in Sheath's namespace");
            draft.notes.push(format!("{what}: `bundle.pem` is {}.", text(&entry["bundle"])));
            if entry["crl"].is_object() {
                object["crl"] = crl(&entry["crl"]);
                draft.notes.push(format!("{what}: `ca.crl` is {}.", files(&entry["crl"])));
            }
            let mut only = mapping(entry);
            put(&mut kept, domain, take(&mut only, &["bundle", "crl"]));
            federated.push(object);
        }
        if !federated.is_empty() {
            draft.spec.insert("trustDomains".to_owned(), federated.into());
        }
        put(&mut draft.in_file, "trustDomains", kept);
        let others = mapping(file);
        let others: Vec<_> =
            others.keys().filter(|key| !CONVERTED.contains(&key.as_str())).collect();
        if !others.is_empty() {
            let others: Vec<_> = others.iter().map(|key| format!("`{key}`")).collect();
            draft.notes.push(format!("Of the node, and left in the file: {}.", others.join(", ")));
        }
        if !list(&file["peers"]).is_empty() {
            draft.notes.push(peers(file)?);
        }
        self.add("trustDomain", draft)
    }

    fn tls_context(&mut self, context: &Value) -> Converting<()> {
        let name = text(&context["name"]);
        let mut draft = Draft::new(Kind::TlsContext, name, mapping(&json!({ "secret": name })));
        let files = &context["files"];
        draft.notes.push(format!(
            "Secret `{name}`: `tls.crt` is {}, `tls.key` is {}.",
            text(&files["certificate"]),
            text(&files["key"])
        ));
        put(&mut draft.in_file, "files", mapping(files));
        self.add(&format!("tlsContexts[{name}]"), draft)
    }

    fn workload(&mut self, workload: &Value) -> Converting<()> {
        let (name, at) =
            (text(&workload["name"]), format!("workloads[{}]", text(&workload["name"])));
        check_name(&at, name)?;
        let mut keys = mapping(workload);
        let selector = json!({ "matchLabels": { NAME_LABEL: name } });
        let mut draft = Draft::new(Kind::WorkloadPolicy, name, Keys::new());
        draft.spec.insert("selector".to_owned(), selector.clone());
        draft.in_file = take(&mut keys, &["select", "spiffeId", "identity"]);
        draft.notes.push(format!(
            "`select` names cgroups, and a policy selects pods by their labels: these have `{NAME_LABEL}: {name}`."
        ));
        if draft.in_file.len() > 1 {
            draft.notes.push(
                "`spiffeId`, `identity`: a pod has the identity of its service account.".to_owned(),
            );
        }
        let mut inbound = mapping(&workload["inbound"]);
        let mut only =
            take(&mut inbound, &["publishedPorts", "addresses", "namespace", "activator"]);
        if !only.is_empty() {
            let what = only.keys().map(|key| format!("`inbound.{key}`")).collect::<Vec<_>>();
            draft
                .notes
                .push(format!("A pod has a network of its own, and needs no {}.", what.join(", ")));
        }
        let mut callers = take(&mut inbound, &["allow", "allowPins"]);
        let is_off = [Value::Null, "disabled".into()].contains(&workload["inbound"]["mode"]);
        if is_off {
            only.append(&mut callers);
        }
        if let Some(tls) = inbound.get_mut("tls") {
            let mut keys = mapping(tls);
            self.standard_tls(&format!("{at}.inbound.tls"), name, &mut keys)?;
            *tls = Value::Object(keys);
        }
        put(&mut draft.in_file, "inbound", only);
        put(&mut draft.spec, "inbound", inbound);
        for key in ["outbound", "existing"] {
            draft.spec.extend(keys.remove(key).map(|value| (key.to_owned(), value)));
        }
        self.add(&at, draft)?;
        match is_off {
            true => Ok(()),
            false => self.callers(name, selector, &callers),
        }
    }

    /// Who may call a workload, as an Allow.
    fn callers(&mut self, name: &str, selector: Value, callers: &Keys) -> Converting<()> {
        let at = &format!("workloads[{name}]");
        let of = |key: &str| callers.get(key).map(list).unwrap_or_default();
        let ids = of("allow").chunks(LONGEST_LIST);
        let ids = ids.map(|ids| json!({ "from": { "spiffeIds": ids } }));
        let pins = of("allowPins").chunks(LONGEST_LIST / 2);
        let pins = pins.map(|pins| json!({ "from": { "pins": pins } }));
        check_pins(at, of("allowPins"))?;
        let rules: Vec<_> = ids.chain(pins).collect();
        if rules.is_empty() {
            return Err(ConvertError::at(
                at,
                "no agent may call it, and without an AuthorizationPolicy every one of the trust domain might; name somebody in inbound.allow",
            ));
        }
        let spec = json!({ "action": "Allow", "selector": selector, "rules": rules });
        self.add(at, Draft::new(Kind::AuthorizationPolicy, name, mapping(&spec)))
    }

    fn external_peer(&mut self, peer: &Value) -> Converting<()> {
        let (name, at) = (text(&peer["name"]), format!("externalPeers[{}]", text(&peer["name"])));
        check_name(&at, name)?;
        let mut spec = mapping(peer);
        spec.remove("name");
        if let Some(Value::String(timeout)) = spec.get_mut("connectTimeout")
            && let Some(period) = period(timeout)
        {
            *timeout = period;
        }
        self.standard_tls(&at, name, &mut spec)?;
        self.add(&at, Draft::new(Kind::ExternalPeer, name, spec))
    }

    /// Makes a TlsContext of authorities in files.
    fn standard_tls(&mut self, at: &str, owner: &str, keys: &mut Keys) -> Converting<()> {
        check_pins(at, keys.get("pins").map(list).unwrap_or_default())?;
        let Some(trust) = keys.get("trust") else { return Ok(()) };
        if trust["bundle"].is_null() {
            return match trust["crl"].is_null() {
                true => Ok(()),
                false => Err(ConvertError::at(
                    format!("{at}.trust.crl"),
                    "CRLs beside the system's authorities have no equivalent; write a bundle",
                )),
            };
        }
        let name =
            format!("{owner}-{}", if at.ends_with("tls") { "client-roots" } else { "roots" });
        let mut spec = json!({ "secret": name });
        let mut notes = vec![format!("Secret `{name}`: `ca.crt` is {}.", text(&trust["bundle"]))];
        if trust["crl"].is_object() {
            spec["crl"] = crl(&trust["crl"]);
            notes.push(format!("Secret `{name}`: `ca.crl` is {}.", files(&trust["crl"])));
        }
        let mut draft = Draft::new(Kind::TlsContext, &name, mapping(&spec));
        (draft.notes, draft.in_file) = (notes, mapping(&json!({ "trust": trust })));
        keys.insert("trust".to_owned(), json!({ "tlsContext": name }));
        self.add(&format!("{at}.trust"), draft)
    }
}

/// # Errors
/// If no object can have the name.
fn check_name(at: &str, name: &str) -> Converting<()> {
    let reason = "no object can have this name; it has to be of a-z, 0-9, `-` and `.`";
    object_name(name).map(drop).ok_or_else(|| ConvertError::at(at, reason))
}

/// # Errors
/// If a pin is in a file: without it, others would do.
fn check_pins(at: &str, pins: &[Value]) -> Converting<()> {
    match pins.iter().find(|pin| !pin["certificate"].is_null()) {
        None => Ok(()),
        Some(pin) => Err(ConvertError::at(
            at,
            format!(
                "the pin of the file {} has no equivalent; write its digest, certificateSha256",
                text(&pin["certificate"])
            ),
        )),
    }
}

/// What is to be said about `peers`, which the controller knows of pods.
fn peers(file: &Value) -> Converting<String> {
    let prefers = |workload: &&Value| workload["outbound"]["mode"] == "prefer";
    match list(&file["workloads"]).iter().find(prefers) {
        Some(workload) => Err(ConvertError::at(
            "peers",
            format!(
                "agents outside of the cluster have no equivalent, and workloads[{}] prefers: it would speak plaintext with them",
                text(&workload["name"])
            ),
        )),
        None => Ok("`peers`: the controller knows which pod is where; agents outside of the cluster are refused.".to_owned()),
    }
}

fn crl(file: &Value) -> Value {
    let mut crl = mapping(&json!({ "key": "ca.crl" }));
    crl.append(&mut take(&mut mapping(file), &["unknown", "expired"]));
    Value::Object(crl)
}

fn files(crl: &Value) -> String {
    list(&crl["files"]).iter().map(text).collect::<Vec<_>>().join(" and ")
}

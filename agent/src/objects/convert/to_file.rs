//! Objects as keys of a configuration file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::keys::{Keys, list, mapping, put, text};
use super::{ConvertError, Converted, IN_FILE};
use crate::objects::model::{IdentityTemplate, Kind, Object, ObjectName};

type Converting<T> = Result<T, ConvertError>;

/// The keys of a configuration file that objects come to.
///
/// # Errors
/// What has no equivalent, and would be missed, or an object that makes no sense.
pub fn to_file(objects: &[Value]) -> Converting<Converted> {
    let mut reader = Reader { of: BTreeMap::new(), notes: Vec::new() };
    for object in objects {
        let found = Kind::named(text(&object["kind"]))
            .ok_or_else(|| ConvertError::at(text(&object["kind"]), "is none of Sheath's kinds"))?;
        Object::read(found, object)
            .map_err(|malformed| ConvertError::at("the object", malformed.to_string()))?;
        reader.of.entry(found).or_default().push(object);
    }
    let mut file = reader.trust_domain()?;
    let contexts = reader.tls_contexts();
    put_list(&mut file, "tlsContexts", contexts);
    let workloads = reader.each(Kind::WorkloadPolicy, Reader::workload)?;
    put_list(&mut file, "workloads", workloads);
    reader.check_authorizations()?;
    let peers = reader.each(Kind::ExternalPeer, Reader::external_peer)?;
    put_list(&mut file, "externalPeers", peers);
    let mut converted = Converted::default();
    converted.add(reader.notes, Value::Object(file));
    Ok(converted)
}

fn put_list(file: &mut Keys, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        file.insert(key.to_owned(), list.into());
    }
}

struct Reader<'o> {
    of: BTreeMap<Kind, Vec<&'o Value>>,
    notes: Vec<String>,
}

/// Where an object is, for messages.
fn at(object: &Value) -> String {
    format!("{} {}", text(&object["kind"]), ObjectName::of(object))
}

/// What only the file has, as it was kept.
fn in_file(object: &Value) -> Value {
    let kept = text(&object["metadata"]["annotations"][IN_FILE]);
    serde_json::from_str(kept).unwrap_or_default()
}

fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

impl<'o> Reader<'o> {
    fn all(&self, kind: Kind) -> Vec<&'o Value> {
        self.of.get(&kind).cloned().unwrap_or_default()
    }

    fn each(
        &mut self,
        kind: Kind,
        read: impl Fn(&mut Self, &'o Value) -> Converting<Value>,
    ) -> Converting<Vec<Value>> {
        self.all(kind).into_iter().map(|object| read(self, object)).collect()
    }

    fn trust_domain(&mut self) -> Converting<Keys> {
        let mut file = Keys::new();
        let Some(object) = self.all(Kind::TrustDomain).first().copied() else {
            self.notes.push("`trustDomain`: no TrustDomain says it.".to_owned());
            return Ok(file);
        };
        let (spec, kept) = (&object["spec"], in_file(object));
        let template = spec["identityTemplate"].as_str().map(IdentityTemplate::parse);
        if template.is_some_and(|template| template.ok() != Some(IdentityTemplate::default())) {
            let reason = "identityTemplate has no equivalent: a workload says its spiffeId";
            return Err(ConvertError::at(at(object), reason));
        }
        file.insert("trustDomain".to_owned(), spec["trustDomain"].clone());
        match (&kept["identity"], &spec["issuer"]["spire"]) {
            (Value::Object(identity), _) => put(&mut file, "identity", identity.clone()),
            (_, Value::Object(spire)) => put(&mut file, "identity", mapping(&json!({ "spire": spire }))),
            _ => self.notes.push(
                "`identity`: outside of a cluster, workloads have identities from `ca`, `files` or `spire`.".to_owned(),
            ),
        }
        let mut domains = Vec::new();
        for entry in list(&spec["trustDomains"]) {
            let mut domain = mapping(&json!({ "name": entry["name"] }));
            match kept["trustDomains"][text(&entry["name"])].as_object() {
                Some(files) => domain.extend(files.clone()),
                None => {
                    let dir = format!("/etc/sheath/trust/{}", text(&entry["configMap"]));
                    let key = entry["bundle"].as_str().unwrap_or("bundle.pem");
                    domain.insert("bundle".to_owned(), format!("{dir}/{key}").into());
                    if entry["crl"].is_object() {
                        domain.insert("crl".to_owned(), crl(&dir, &entry["crl"]));
                    }
                    self.notes
                        .push(format!("{dir} is the ConfigMap `{}`.", text(&entry["configMap"])));
                }
            }
            domains.push(Value::Object(domain));
        }
        put_list(&mut file, "trustDomains", domains);
        Ok(file)
    }

    /// Certificates. What is there for its authorities alone is where these are used.
    fn tls_contexts(&mut self) -> Vec<Value> {
        let mut contexts = Vec::new();
        for object in self.all(Kind::TlsContext) {
            let kept = in_file(object);
            if kept["trust"].is_object() {
                continue;
            }
            let files = match &kept["files"] {
                Value::Object(files) => Value::Object(files.clone()),
                _ => {
                    let dir = directory(object);
                    self.notes.push(format!(
                        "{dir} is the Secret `{}`.",
                        text(&object["spec"]["secret"])
                    ));
                    json!({ "certificate": format!("{dir}/tls.crt"), "key": format!("{dir}/tls.key") })
                }
            };
            contexts.push(json!({ "name": name(object), "files": files }));
        }
        contexts
    }

    fn workload(&mut self, object: &'o Value) -> Converting<Value> {
        let (spec, kept) = (&object["spec"], in_file(object));
        let mut workload = mapping(&json!({ "name": name(object) }));
        for key in ["select", "spiffeId", "identity"] {
            workload.extend(kept.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        if !workload.contains_key("select") {
            workload.insert("select".to_owned(), json!({}));
            self.notes.push(format!(
                "workloads[{}].select: the file selects cgroups, and no pods by their labels; write `cgroup` or `systemdUnit`.",
                name(object)
            ));
        }
        let mut inbound = mapping(&spec["inbound"]);
        if !list(&spec["inbound"]["portModes"]).is_empty() {
            let reason = "inbound.portModes has no equivalent: ports of one workload have one mode";
            return Err(ConvertError::at(at(object), reason));
        }
        if let Some(tls) = inbound.get_mut("tls") {
            let mut keys = mapping(tls);
            self.standard_tls(object, &mut keys)?;
            *tls = Value::Object(keys);
        }
        inbound.extend(self.callers(object)?);
        inbound.extend(mapping(&kept["inbound"]));
        put(&mut workload, "inbound", inbound);
        for key in ["outbound", "existing"] {
            workload.extend(spec.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        if !spec["probes"].is_null() {
            self.notes
                .push(format!("{}: `probes` has no equivalent outside of a cluster.", at(object)));
        }
        Ok(Value::Object(workload))
    }

    /// Who may call: the Allow of the same name.
    fn callers(&mut self, policy: &Value) -> Converting<Keys> {
        let mode = text(&policy["spec"]["inbound"]["mode"]);
        let allow = self.all(Kind::AuthorizationPolicy).into_iter();
        let is_of = |allow: &&Value| is_allow_of(allow, policy);
        let Some(allow) = allow.clone().find(is_of) else {
            let is_off = ["", "disabled"].contains(&mode);
            return match is_off || policy["spec"]["inbound"]["tls"].is_object() {
                true => Ok(Keys::new()),
                false => Err(ConvertError::at(
                    at(policy),
                    "every identity of the trust domain may call, which has no equivalent; write an AuthorizationPolicy of the same name and selector that allows some",
                )),
            };
        };
        if ["", "disabled"].contains(&mode) {
            let reason =
                "whom it allows is looked at, and the policy of this name says no inbound.mode";
            return Err(ConvertError::at(at(allow), reason));
        }
        if !allow["spec"]["ports"].is_null() {
            return Err(ConvertError::at(at(allow), "ports has no equivalent"));
        }
        let (mut ids, mut pins) = (Vec::new(), Vec::new());
        for rule in list(&allow["spec"]["rules"]) {
            let from = mapping(&rule["from"]);
            match (from.len(), from.get("spiffeIds"), from.get("pins")) {
                (1, Some(more), None) => ids.extend_from_slice(list(more)),
                (1, None, Some(more)) => pins.extend_from_slice(list(more)),
                _ => {
                    let reason =
                        "a rule of anything but spiffeIds alone, or pins alone, has no equivalent";
                    return Err(ConvertError::at(at(allow), reason));
                }
            }
        }
        if ids.iter().any(|id| text(id).ends_with("/*")) {
            return Err(ConvertError::at(
                at(allow),
                "all of a trust domain have no equivalent; name them",
            ));
        }
        let mut callers = Keys::new();
        for (key, list) in [("allow", ids), ("allowPins", pins)] {
            put_list(&mut callers, key, list);
        }
        Ok(callers)
    }

    /// # Errors
    /// If an AuthorizationPolicy is left that refuses somebody.
    fn check_authorizations(&mut self) -> Converting<()> {
        for policy in self.all(Kind::AuthorizationPolicy) {
            match text(&policy["spec"]["action"]) {
                "Audit" => {
                    self.notes.push(format!("{}: nothing is rehearsed by the file.", at(policy)))
                }
                "Allow"
                    if self.all(Kind::WorkloadPolicy).iter().any(|of| is_allow_of(policy, of)) => {}
                "Allow" => {
                    let reason =
                        "has no equivalent without a WorkloadPolicy of the same name and selector";
                    return Err(ConvertError::at(at(policy), reason));
                }
                _ => return Err(ConvertError::at(at(policy), "a Deny has no equivalent")),
            }
        }
        Ok(())
    }

    fn external_peer(&mut self, object: &'o Value) -> Converting<Value> {
        let mut peer = mapping(&object["spec"]);
        if peer.contains_key("selector") {
            let reason =
                "selector has no equivalent: every workload of a host uses an external peer";
            return Err(ConvertError::at(at(object), reason));
        }
        if peer.remove("exportTo").is_some() {
            self.notes.push(format!("{}: every workload of the host uses it.", at(object)));
        }
        self.standard_tls(object, &mut peer)?;
        peer.insert("name".to_owned(), name(object).into());
        Ok(Value::Object(peer))
    }

    /// Writes the files of a TlsContext's authorities where the object names it.
    fn standard_tls(&mut self, object: &Value, keys: &mut Keys) -> Converting<()> {
        let wanted = match keys.get("trust") {
            Some(trust) if !trust["tlsContext"].is_null() => text(&trust["tlsContext"]).to_owned(),
            _ => return Ok(()),
        };
        let space = &object["metadata"]["namespace"];
        let mut contexts = self.all(Kind::TlsContext).into_iter();
        let is_meant = |context: &&Value| {
            name(context) == wanted && context["metadata"]["namespace"] == *space
        };
        let context = contexts.find(is_meant).ok_or_else(|| {
            ConvertError::at(
                at(object),
                format!("there is no TlsContext `{wanted}` among the objects"),
            )
        })?;
        let trust = match &in_file(context)["trust"] {
            Value::Object(trust) => Value::Object(trust.clone()),
            _ => {
                let dir = directory(context);
                let key = context["spec"]["ca"].as_str().unwrap_or("ca.crt");
                let mut trust = json!({ "bundle": format!("{dir}/{key}") });
                if context["spec"]["crl"].is_object() {
                    trust["crl"] = crl(&dir, &context["spec"]["crl"]);
                }
                trust
            }
        };
        keys.insert("trust".to_owned(), trust);
        Ok(())
    }
}

/// True if an AuthorizationPolicy says who may call the pods of a WorkloadPolicy.
fn is_allow_of(allow: &Value, policy: &Value) -> bool {
    let is_same = |key: &str| allow["metadata"][key] == policy["metadata"][key];
    allow["spec"]["action"] == "Allow"
        && is_same("name")
        && is_same("namespace")
        && allow["spec"]["selector"] == policy["spec"]["selector"]
}

/// Where somebody may put the files of a Secret.
fn directory(context: &Value) -> String {
    format!("/etc/sheath/tls/{}", text(&context["spec"]["secret"]))
}

fn crl(dir: &str, object: &Value) -> Value {
    let mut crl = mapping(object);
    let key = crl.remove("key").unwrap_or_default();
    crl.insert("files".to_owned(), json!([format!("{dir}/{}", text(&key))]));
    Value::Object(crl)
}

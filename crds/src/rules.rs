//! Every rule that the API server checks at admission, in CEL. A message names the field, its value and what is allowed.
//!
//! Texts are quoted by `strings.quote`: a line break in a value would make the API server drop the message. Every rule that reads a text in some form
//! passes where the text does not have that form, since another rule refuses it then and one complaint is enough.

use crate::SUPPORTED;
use kube::core::{Message, Rule};

/// A rule whose message is computed.
fn rule(cel: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule::new(cel).message(Message::Expression(message.into()))
}

const LABEL: &str = "'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'";
const QUALIFIED: &str =
    r"'^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'";
const LABEL_VALUE: &str = "'^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'";
const RELEASE: &str = r"'^v[0-9]{1,3}\\.[0-9]{1,4}\\.[0-9]{1,6}$'";

/// `a, b or c`.
fn any_of(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// A CEL list of texts.
fn list(words: &[&str]) -> String {
    format!("[{}]", words.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(", "))
}

/// `metadata.name` of a Cluster: machine names, host names and label values are made of it.
#[must_use]
pub fn cluster_name() -> Rule {
    rule(
        format!("self.metadata.name.size() <= 30 && self.metadata.name.matches({LABEL})"),
        "'metadata.name is ' + strings.quote(self.metadata.name) + ' (' + string(self.metadata.name.size()) + ' characters): must be at most 30 lower-case letters, digits and \"-\", without dots, since machine names and labels are made of it'",
    )
}

/// One of [`SUPPORTED`].
#[must_use]
pub fn supported_version() -> Rule {
    rule(
        format!("self in {}", list(SUPPORTED)),
        format!("'spec.kubernetesVersion is ' + strings.quote(self) + ': must be {}'", any_of(SUPPORTED)),
    )
}

/// Not lower than before.
#[must_use]
pub fn no_downgrade() -> Rule {
    rule(
        format!(
            "!self.matches({RELEASE}) || !oldSelf.matches({RELEASE}) || semver(self.substring(1)).compareTo(semver(oldSelf.substring(1))) >= 0"
        ),
        "'spec.kubernetesVersion is ' + strings.quote(self) + ' and was ' + strings.quote(oldSelf) + ': must not be lowered, Kubernetes cannot be downgraded'",
    )
}

/// At most one minor version higher than before.
#[must_use]
pub fn no_minor_skipped() -> Rule {
    rule(
        format!(
            "!self.matches({RELEASE}) || !oldSelf.matches({RELEASE}) || semver(self.substring(1)).minor() <= semver(oldSelf.substring(1)).minor() + 1"
        ),
        "'spec.kubernetesVersion is ' + strings.quote(self) + ' and was ' + strings.quote(oldSelf) + ': must be raised one minor version at a time, to v1.' + string(semver(oldSelf.substring(1)).minor() + 1) + ' first'",
    )
}

/// Exactly one of the providers, for ever the same.
#[must_use]
pub fn provider(names: &[&str]) -> [Rule; 2] {
    let given = format!(
        "[{}].filter(given, given != '')",
        names.iter().map(|n| format!("has(self.{n}) ? '{n}' : ''")).collect::<Vec<_>>().join(", ")
    );
    let must = match names {
        [one] => format!("must name exactly one provider, {one}"),
        more => format!("must name exactly one provider of {}", any_of(more)),
    };
    [
        rule(
            format!("{given}.size() == 1"),
            format!("'spec.provider names ' + ({given}.size() == 0 ? 'none' : {given}.join(' and ')) + ': {must}'"),
        ),
        Rule::new("self == oldSelf").message("spec.provider cannot be changed: make a new cluster for another provider"),
    ]
}

/// An IPv4 range.
#[must_use]
pub fn is_range(field: &str, example: &str) -> Rule {
    rule(
        "isCIDR(self) && cidr(self).ip().family() == 4",
        format!("'spec.network.{field} is ' + strings.quote(self) + ': must be an IPv4 range such as {example}'"),
    )
}

/// No address bits beyond the prefix.
#[must_use]
pub fn no_host_bits(field: &str) -> Rule {
    rule(
        "!isCIDR(self) || cidr(self) == cidr(self).masked()",
        format!("'spec.network.{field} is ' + strings.quote(self) + ': has host bits set, must be ' + string(cidr(self).masked())"),
    )
}

/// kube-controller-manager gives every node a /24 and manages at most 2^16 of them.
#[must_use]
pub fn pod_range_size() -> Rule {
    rule(
        "!isCIDR(self) || cidr(self).ip().family() != 4 || (cidr(self).prefixLength() >= 8 && cidr(self).prefixLength() <= 24)",
        "'spec.network.podCIDR is ' + strings.quote(self) + ': must be between /8 and /24, every node takes a /24 of it'",
    )
}

/// kube-apiserver refuses more than 2^20 Service addresses; the cluster's own Services need a few.
#[must_use]
pub fn service_range_size() -> Rule {
    rule(
        "!isCIDR(self) || cidr(self).ip().family() != 4 || (cidr(self).prefixLength() >= 12 && cidr(self).prefixLength() <= 28)",
        "'spec.network.serviceCIDR is ' + strings.quote(self) + ': must be between /12 and /28'",
    )
}

/// Pods keep their addresses, and so do certificates and Services.
#[must_use]
pub fn immutable_range(field: &str) -> Rule {
    rule(
        "self == oldSelf",
        format!(
            "'spec.network.{field} is ' + strings.quote(self) + ' and was ' + strings.quote(oldSelf) + ': cannot be changed, make a new cluster for other ranges'"
        ),
    )
}

/// No address in both ranges.
#[must_use]
pub fn disjoint() -> Rule {
    rule(
        "!isCIDR(self.podCIDR) || !isCIDR(self.serviceCIDR) || !(cidr(self.podCIDR).containsCIDR(self.serviceCIDR) || cidr(self.serviceCIDR).containsCIDR(self.podCIDR))",
        "'spec.network.podCIDR ' + self.podCIDR + ' and spec.network.serviceCIDR ' + self.serviceCIDR + ' overlap: must be disjoint'",
    )
}

/// A /24 for every node. Pools that are scaled by others count as one.
#[must_use]
pub fn room_for_nodes() -> Rule {
    let room: Vec<String> = (0..=16).map(|bits| (1_u32 << bits).to_string()).collect();
    let room = format!("[{}][24 - cidr(self.network.podCIDR).prefixLength()]", room.join(", "));
    let nodes = "self.controlPlane.replicas + self.pools.map(p, has(p.replicas) ? p.replicas : 1).sum()";
    let sized = "isCIDR(self.network.podCIDR) && cidr(self.network.podCIDR).ip().family() == 4 && cidr(self.network.podCIDR).prefixLength() >= 8 && cidr(self.network.podCIDR).prefixLength() <= 24";
    rule(
        format!("!({sized}) || {nodes} <= {room}"),
        format!(
            "'spec.network.podCIDR is ' + strings.quote(self.network.podCIDR) + ': has room for ' + string({room}) + ' nodes of /24, and ' + string({nodes}) + ' are asked for; must be larger'"
        ),
    )
}

/// etcd members: odd, and not so many that writes become slow.
#[must_use]
pub fn control_plane_replicas() -> Rule {
    rule("self in [1, 3, 5, 7]", "'spec.controlPlane.replicas is ' + string(self) + ': must be 1, 3, 5 or 7'")
}

/// A label, short enough, and not the control plane's.
#[must_use]
pub fn pool_name() -> Rule {
    rule(
        format!("self.size() <= 20 && self != 'cp' && self.matches({LABEL})"),
        "'spec.pools[].name is ' + strings.quote(self) + (self == 'cp' ? ': must be another, cp is the control plane' : ' (' + string(self.size()) + ' characters): must be 1 to 20 lower-case letters, digits and \"-\"')",
    )
}

/// Every name once. The list type says so too, but in no words.
#[must_use]
pub fn unique_pools() -> Rule {
    rule(
        "self.all(p, self.exists_one(q, q.name == p.name))",
        "'spec.pools[].name ' + strings.quote(self.filter(p, !self.exists_one(q, q.name == p.name))[0].name) + ' is there more than once: must be unique'",
    )
}

/// Keys and values of labels.
#[must_use]
pub fn labels() -> [Rule; 2] {
    let bad_key = format!("!(k.matches({QUALIFIED}) && k.indexOf('/') <= 253)");
    let bad_value = format!("!self[k].matches({LABEL_VALUE})");
    [
        rule(
            format!("!self.exists(k, {bad_key})"),
            format!(
                "'spec.pools[].labels has the key ' + strings.quote(self.filter(k, {bad_key})[0]) + ': must be at most 63 letters, digits, \"-\", \"_\" and \".\", beginning and ending with a letter or digit, after an optional DNS name and \"/\"'"
            ),
        ),
        rule(
            format!("!self.exists(k, {bad_value})"),
            format!(
                "'spec.pools[].labels has ' + strings.quote(self.filter(k, {bad_value})[0]) + ' with the value ' + strings.quote(self[self.filter(k, {bad_value})[0]]) + ': must be empty or at most 63 letters, digits, \"-\", \"_\" and \".\", beginning and ending with a letter or digit'"
            ),
        ),
    ]
}

/// A taint's key is a qualified name, as a label's.
#[must_use]
pub fn taint_key() -> Rule {
    rule(
        format!("self.matches({QUALIFIED}) && self.indexOf('/') <= 253"),
        "'spec.pools[].taints[].key is ' + strings.quote(self) + ': must be at most 63 letters, digits, \"-\", \"_\" and \".\", beginning and ending with a letter or digit, after an optional DNS name and \"/\"'",
    )
}

/// A taint's value is one of a label.
#[must_use]
pub fn taint_value() -> Rule {
    rule(
        format!("self.matches({LABEL_VALUE})"),
        "'spec.pools[].taints[].value is ' + strings.quote(self) + ': must be empty or at most 63 letters, digits, \"-\", \"_\" and \".\", beginning and ending with a letter or digit'",
    )
}

/// A release of that major version.
#[must_use]
pub fn component_version(component: &str, major: u32, example: &str) -> Rule {
    rule(
        format!(r"self.matches('^v{major}\\.(0|[1-9][0-9]{{0,3}})\\.(0|[1-9][0-9]{{0,3}})$')"),
        format!("'spec.componentVersions.{component} is ' + strings.quote(self) + ': must be a release such as {example}'"),
    )
}

/// etcd's data cannot be read by an older etcd.
#[must_use]
pub fn no_etcd_downgrade() -> Rule {
    rule(
        format!(
            "!self.matches({RELEASE}) || !oldSelf.matches({RELEASE}) || semver(self.substring(1)).compareTo(semver(oldSelf.substring(1))) >= 0"
        ),
        "'spec.componentVersions.etcd is ' + strings.quote(self) + ' and was ' + strings.quote(oldSelf) + ': must not be lowered, an older etcd cannot read the data of a newer one'",
    )
}

/// A text that stays as it was made.
#[must_use]
pub fn immutable(field: &str) -> Rule {
    rule("self == oldSelf", format!("'{field} is ' + strings.quote(self) + ' and was ' + strings.quote(oldSelf) + ': cannot be changed'"))
}

/// A number that stays as it was made.
#[must_use]
pub fn immutable_number(field: &str) -> Rule {
    rule("self == oldSelf", format!("'{field} is ' + string(self) + ' and was ' + string(oldSelf) + ': cannot be changed'"))
}

/// A fact of the spec that is written once.
#[must_use]
pub fn recorded_once(field: &str) -> Rule {
    Rule::new(format!("!has(oldSelf.{field}) || (has(self.{field}) && self.{field} == oldSelf.{field})"))
        .message(format!("spec.{field} is recorded and cannot be changed or removed: delete the Machine to have it replaced").as_str())
}

/// The control plane's pool is cp, and only it.
#[must_use]
pub fn role_fits_pool() -> Rule {
    rule(
        "(self.role == 'ControlPlane') == (self.pool == 'cp')",
        "'spec.role is ' + self.role + ' in pool ' + strings.quote(self.pool) + ': must be ControlPlane in pool cp and Worker in every other'",
    )
}

/// `<cluster>-<pool>`.
#[must_use]
pub fn pool_object_name() -> Rule {
    rule(
        "self.metadata.name == self.spec.cluster + '-' + self.spec.pool",
        "'metadata.name is ' + strings.quote(self.metadata.name) + ': must be ' + self.spec.cluster + '-' + self.spec.pool",
    )
}

/// `<cluster>-<pool>-<ordinal>`.
#[must_use]
pub fn machine_name() -> Rule {
    rule(
        "self.metadata.name == self.spec.cluster + '-' + self.spec.pool + '-' + string(self.spec.ordinal)",
        "'metadata.name is ' + strings.quote(self.metadata.name) + ': must be ' + self.spec.cluster + '-' + self.spec.pool + '-' + string(self.spec.ordinal)",
    )
}

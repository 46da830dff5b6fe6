//! Every rule that the API server checks at admission, in CEL. A message names the field, its value and what is allowed.
//!
//! - Texts are quoted by `strings.quote`: a line break in a value would make the API server drop the message.
//! - Messages are put together by `format`, all arguments texts: the API server's estimate of what a concatenation costs knows no bound for the length of
//!   `string(number)` and refuses the definition.
//! - A rule that reads a text in some form passes where the text does not have that form: another rule refuses it then, and one complaint is enough.

use crate::SUPPORTED;
use kube::core::{Message, Rule};

/// A rule whose message has a value for each `%s`.
fn rule(cel: impl Into<String>, message: &str, values: &[&str]) -> Rule {
    Rule::new(cel).message(Message::Expression(format!("'{message}'.format([{}])", values.join(", "))))
}

/// The text that is looked at, and what it was.
const SELF: &str = "strings.quote(self)";
const OLD: &str = "strings.quote(oldSelf)";

const LABEL: &str = "'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'";
const QUALIFIED: &str =
    r"'^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'";
const LABEL_VALUE: &str = "'^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'";
/// `v1.36.4`, and whatever else `semver` reads after the first character.
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
        "metadata.name is %s (%s characters): must be at most 30 lower-case letters, digits and \"-\", without dots, since machine names and labels are made of it",
        &["strings.quote(self.metadata.name)", "string(self.metadata.name.size())"],
    )
}

/// `metadata.name` of an EtcdSnapshot: files are called after it, and file systems take 255 bytes.
#[must_use]
pub fn snapshot_name() -> Rule {
    rule(
        "self.metadata.name.size() <= 200",
        "metadata.name has %s characters: must have at most 200, since files are called after it",
        &["string(self.metadata.name.size())"],
    )
}

/// One of [`SUPPORTED`].
#[must_use]
pub fn supported_version() -> Rule {
    let message = format!("spec.kubernetesVersion is %s: must be {}", any_of(SUPPORTED));
    rule(format!("self in {}", list(SUPPORTED)), &message, &[SELF])
}

/// Holds unless both are releases and `comparison` of them does not hold.
fn releases(comparison: &str) -> String {
    format!("!self.matches({RELEASE}) || !oldSelf.matches({RELEASE}) || {comparison}")
}

/// The version of a Cluster's spec and what it was, as texts.
const VERSION: &str = "self.spec.kubernetesVersion";
const OLD_VERSION: &str = "oldSelf.spec.kubernetesVersion";

/// Of a Cluster: an upgrade that was begun and is not over is recorded.
const UPGRADING: &str = "(has(self.status) && has(self.status.recorded) && has(self.status.recorded.upgrade) && has(self.status.recorded.upgrade.from.apiServer))";
const FROM: &str = "self.status.recorded.upgrade.from.apiServer";
const RUNS: &str = "(has(self.status) && has(self.status.kubernetesVersion))";
const RUNNING: &str = "self.status.kubernetesVersion";

/// A pool that has a version of its own, where it and the Cluster's are releases.
const POOL_RELEASE: &str = r"has(p.kubernetesVersion) && p.kubernetesVersion.matches('^v[0-9]{1,3}\\.[0-9]{1,4}\\.[0-9]{1,6}$') && self.kubernetesVersion.matches('^v[0-9]{1,3}\\.[0-9]{1,4}\\.[0-9]{1,6}$')";

/// What a Cluster came from: what the upgrade under way began with, else what its API servers run, else what was asked for before.
fn base() -> String {
    format!("({UPGRADING} ? {FROM} : ({RUNS} ? {RUNNING} : {OLD_VERSION}))")
}

/// A release as `semver` compares it.
fn semver(text: &str) -> String {
    format!("semver({text}.substring(1))")
}

/// `left` is older than `right`. Whoever asks knows that both are releases.
fn older(left: &str, right: &str) -> String {
    format!("{}.compareTo({}) < 0", semver(left), semver(right))
}

/// The supported release of a minor version, or the minor version where there is none.
fn release_of(minor: &str) -> String {
    let known = SUPPORTED.iter().filter_map(|v| Some((v.split('.').nth(1)?, v)));
    known.rev().fold(format!("'v1.%s'.format([string({minor})])"), |rest, (m, v)| format!("({minor} == {m} ? '{v}' : {rest})"))
}

/// Not lower than before, but to take back what is not done: to what the upgrade under way began with, or to what runs while none was begun.
#[must_use]
pub fn no_downgrade() -> Rule {
    let [new, old, from, running] = [VERSION, OLD_VERSION, FROM, RUNNING].map(|v| format!("strings.quote({v})"));
    let back = format!("({UPGRADING} ? {VERSION} == {FROM} : ({RUNS} && {VERSION} == {RUNNING}))");
    let but = format!(
        "({UPGRADING} ? 'but back to %s, which the upgrade under way began with'.format([{from}]) : \
         ({RUNS} && {RUNNING} != {OLD_VERSION} ? 'but back to %s, which the API servers run'.format([{running}]) : \
         'Kubernetes cannot be downgraded: leave it at %s'.format([{old}])))"
    );
    let older = older(VERSION, OLD_VERSION);
    rule(
        format!("!{VERSION}.matches({RELEASE}) || !{OLD_VERSION}.matches({RELEASE}) || !({older}) || {back}"),
        "spec.kubernetesVersion is %s and was %s: must not be lowered, %s",
        &[&new, &old, &but],
    )
}

/// At most one minor version higher than what it came from: machines that an upgrade has not reached yet still run that.
#[must_use]
pub fn no_minor_skipped() -> Rule {
    let base = base();
    let minor = |text: &str| format!("{}.minor()", semver(text));
    let next = release_of(&format!("({} + 1)", minor(&base)));
    let why = format!("({UPGRADING} ? 'the upgrade under way began with' : ({RUNS} ? 'its API servers run' : 'it was'))");
    rule(
        format!(
            "{VERSION} == {OLD_VERSION} || !{VERSION}.matches({RELEASE}) || !{base}.matches({RELEASE}) || {} <= {} + 1",
            minor(VERSION),
            minor(&base)
        ),
        "spec.kubernetesVersion is %s and %s %s: must be raised one minor version at a time, to %s first",
        &[&format!("strings.quote({VERSION})"), &why, &format!("strings.quote({base})"), &next],
    )
}

/// Of pools that stay behind the control plane: never ahead.
#[must_use]
pub fn pools_not_newer() -> Rule {
    let newer = format!("{POOL_RELEASE} && {}", older("self.kubernetesVersion", "p.kubernetesVersion"));
    wrong_pool(&newer, "must not be newer than the control plane, leave it out or write %s", "strings.quote(self.kubernetesVersion)")
}

/// And by three minors at most.
#[must_use]
pub fn pools_not_too_old() -> Rule {
    let minor = |text: &str| format!("{}.minor()", semver(text));
    let too_old = format!("{POOL_RELEASE} && {} + 3 < {}", minor("p.kubernetesVersion"), minor("self.kubernetesVersion"));
    let least = release_of(&format!("({} - 3)", minor("self.kubernetesVersion")));
    wrong_pool(&too_old, "must be at most three minor versions older, %s or newer", &least)
}

/// No pool is `bad`; what there `must` be has one value.
fn wrong_pool(bad: &str, must: &str, value: &str) -> Rule {
    rule(
        format!("!self.pools.exists(p, {bad})"),
        &format!("spec.pools[].kubernetesVersion is %s and spec.kubernetesVersion is %s: {must}"),
        &[&version_of_pool("self.pools", bad), "strings.quote(self.kubernetesVersion)", value],
    )
}

/// The version of a pool that is `bad`. Of an element of a filtered list the API server knows no bound; so each supported version is asked for.
fn version_of_pool(pools: &str, bad: &str) -> String {
    let with = |v: &str| format!("{pools}.exists(p, has(p.kubernetesVersion) && p.kubernetesVersion == '{v}' && {bad})");
    SUPPORTED.iter().fold("'another one'".to_owned(), |rest, v| format!("({} ? '\"{v}\"' : {rest})", with(v)))
}

/// A pool's version is not lowered either, but to take back what is not done. Without one of its own it has the Cluster's.
#[must_use]
pub fn no_pool_downgrade() -> Rule {
    let version = |pool: &str, cluster: &str| format!("(has({pool}.kubernetesVersion) ? {pool}.kubernetesVersion : {cluster})");
    let (new, old) = ("p.kubernetesVersion".to_owned(), version("o", OLD_VERSION));
    let lowered = format!(
        "has(p.kubernetesVersion) && {new} != {} && {new}.matches({RELEASE}) && oldSelf.spec.pools.exists(o, o.name == p.name && {old}.matches({RELEASE}) && {})",
        base(),
        older(&new, &old)
    );
    rule(
        format!("!self.spec.pools.exists(p, {lowered})"),
        "spec.pools[].kubernetesVersion is %s and was newer: must not be lowered, kubelets cannot be downgraded, leave it as it was",
        &[&version_of_pool("self.spec.pools", &lowered)],
    )
}

/// Exactly one of the providers, for ever the same.
///
/// Two rules with a message each, not one that says how many were named: of a list that was filtered, the API server knows no bound.
#[must_use]
pub fn provider(names: &[&str]) -> [Rule; 3] {
    let each: Vec<String> = names.iter().map(|name| format!("(has(self.{name}) ? 1 : 0)")).collect();
    let given = each.join(" + ");
    let must = format!("must name exactly one, {}", any_of(names));
    [
        Rule::new(format!("{given} >= 1")).message(format!("spec.provider names none: {must}").as_str()),
        Rule::new(format!("{given} <= 1")).message(format!("spec.provider names several: {must}").as_str()),
        Rule::new("self == oldSelf")
            .message("spec.provider is another than it was: cannot be changed, make a new cluster for another provider"),
    ]
}

/// An IPv4 range.
#[must_use]
pub fn is_range(field: &str, example: &str) -> Rule {
    let message = format!("spec.network.{field} is %s: must be an IPv4 range such as {example}");
    rule("isCIDR(self) && cidr(self).ip().family() == 4", &message, &[SELF])
}

/// No address bits beyond the prefix.
#[must_use]
pub fn no_host_bits(field: &str) -> Rule {
    let message = format!("spec.network.{field} is %s: must have no host bits set, write %s");
    rule("!isCIDR(self) || cidr(self) == cidr(self).masked()", &message, &[SELF, "string(cidr(self).masked())"])
}

/// Holds unless it is an IPv4 range with another prefix length.
fn prefix(range: &str, shortest: u8, longest: u8) -> String {
    let length = format!("cidr({range}).prefixLength()");
    format!("!isCIDR({range}) || cidr({range}).ip().family() != 4 || ({length} >= {shortest} && {length} <= {longest})")
}

/// kube-controller-manager gives every node a /24 and manages at most 2^16 of them.
#[must_use]
pub fn pod_range_size() -> Rule {
    rule(prefix("self", 8, 24), "spec.network.podCIDR is %s: must be between /8 and /24, every node takes a /24 of it", &[SELF])
}

/// kube-apiserver refuses more than 2^20 Service addresses; the cluster's own Services need a few.
#[must_use]
pub fn service_range_size() -> Rule {
    rule(prefix("self", 12, 28), "spec.network.serviceCIDR is %s: must be between /12 and /28", &[SELF])
}

/// Pods keep their addresses, and so do certificates and Services.
#[must_use]
pub fn immutable_range(field: &str) -> Rule {
    let message = format!("spec.network.{field} is %s and was %s: cannot be changed, make a new cluster for other ranges");
    rule("self == oldSelf", &message, &[SELF, OLD])
}

/// No address in both ranges.
#[must_use]
pub fn disjoint() -> Rule {
    rule(
        "!isCIDR(self.podCIDR) || !isCIDR(self.serviceCIDR) || !(cidr(self.podCIDR).containsCIDR(self.serviceCIDR) || cidr(self.serviceCIDR).containsCIDR(self.podCIDR))",
        "spec.network.podCIDR is %s and spec.network.serviceCIDR is %s: must not overlap",
        &["strings.quote(self.podCIDR)", "strings.quote(self.serviceCIDR)"],
    )
}

/// A /24 for every node. Pools that are scaled by others count as one.
#[must_use]
pub fn room_for_nodes() -> Rule {
    let pods = "self.network.podCIDR";
    let room: Vec<String> = (0..=16).map(|bits| (1_u32 << bits).to_string()).collect();
    let room = format!("[{}][24 - cidr({pods}).prefixLength()]", room.join(", "));
    let nodes = "self.controlPlane.replicas + self.pools.map(p, has(p.replicas) ? p.replicas : 1).sum()";
    // Where the length is another, the field's own rule refuses it, and there is no such element.
    let another = format!(
        "!isCIDR({pods}) || cidr({pods}).ip().family() != 4 || cidr({pods}).prefixLength() < 8 || cidr({pods}).prefixLength() > 24"
    );
    rule(
        format!("{another} || {nodes} <= {room}"),
        "spec.network.podCIDR is %s, with room for %s nodes, and %s are asked for: must be large enough for a /24 per node",
        &["strings.quote(self.network.podCIDR)", &format!("string({room})"), &format!("string({nodes})")],
    )
}

/// etcd members: odd, and not so many that writes become slow.
#[must_use]
pub fn control_plane_replicas() -> Rule {
    rule("self in [1, 3, 5, 7]", "spec.controlPlane.replicas is %s: must be 1, 3, 5 or 7", &["string(self)"])
}

/// A label, short enough for the names that are made of it; `cp` is the control plane's.
#[must_use]
pub fn pool_name() -> [Rule; 2] {
    [
        rule(
            format!("self.size() <= 20 && self.matches({LABEL})"),
            "spec.pools[].name is %s (%s characters): must be 1 to 20 lower-case letters, digits and \"-\", beginning and ending with a letter or digit",
            &[SELF, "string(self.size())"],
        ),
        Rule::new("self != 'cp'").message("spec.pools[].name is \"cp\": must be another name than the control plane's"),
    ]
}

/// Every name once. The list type says so too, but in no words.
#[must_use]
pub fn unique_pools() -> Rule {
    // The list is a map by name, so that the API server itself names the value that is there twice; what it costs to do so here has no bound in its eyes.
    Rule::new("self.all(p, self.exists_one(q, q.name == p.name))").message("spec.pools[].name is there more than once: must be unique")
}

/// What a qualified name and a label's value are.
const WORD: &str = "at most 63 letters, digits, \"-\", \"_\" and \".\", beginning and ending with a letter or digit";
const PREFIXED: &str = "after an optional DNS name and \"/\"";

/// Keys and values of labels.
#[must_use]
pub fn labels() -> [Rule; 2] {
    let bad_key = format!("!(k.matches({QUALIFIED}) && k.indexOf('/') <= 253)");
    let key = format!("self.filter(k, {bad_key})[0]");
    let bad_value = format!("!self[k].matches({LABEL_VALUE})");
    let keyed = format!("self.filter(k, {bad_value})[0]");
    [
        rule(
            format!("!self.exists(k, {bad_key})"),
            &format!("spec.pools[].labels has the key %s: must be {WORD}, {PREFIXED}"),
            &[&format!("strings.quote({key})")],
        ),
        rule(
            format!("!self.exists(k, {bad_value})"),
            &format!("spec.pools[].labels has %s with the value %s: must be empty or {WORD}"),
            &[&format!("strings.quote({keyed})"), &format!("strings.quote(self[{keyed}])")],
        ),
    ]
}

/// A taint's key is a qualified name, as a label's.
#[must_use]
pub fn taint_key() -> Rule {
    let cel = format!("self.matches({QUALIFIED}) && self.indexOf('/') <= 253");
    rule(cel, &format!("spec.pools[].taints[].key is %s: must be {WORD}, {PREFIXED}"), &[SELF])
}

/// A taint's value is one of a label.
#[must_use]
pub fn taint_value() -> Rule {
    rule(format!("self.matches({LABEL_VALUE})"), &format!("spec.pools[].taints[].value is %s: must be empty or {WORD}"), &[SELF])
}

/// A release of that major version.
#[must_use]
pub fn component_version(component: &str, major: u32, example: &str) -> Rule {
    let cel = format!(r"self.matches('^v{major}\\.(0|[1-9][0-9]{{0,3}})\\.(0|[1-9][0-9]{{0,3}})$')");
    rule(cel, &format!("spec.componentVersions.{component} is %s: must be a release such as {example}"), &[SELF])
}

/// An etcd's data cannot be read by one of an older minor version. What is not done is taken back: a patch of the upgrade under way, or what all members
/// run.
#[must_use]
pub fn no_etcd_downgrade() -> Rule {
    let (new, old) = ("self.spec.componentVersions.etcd", "oldSelf.spec.componentVersions.etcd");
    let has = |of: &str| format!("has({of}.spec.componentVersions) && has({of}.spec.componentVersions.etcd)");
    let from = "self.status.recorded.upgrade.from.etcd";
    let upgrading = format!("({UPGRADING} && has({from}))");
    let minor = |text: &str| format!("{}.minor()", semver(text));
    let runs = format!(
        "(has(self.status) && has(self.status.etcdMembers) && self.status.etcdMembers.size() > 0 && self.status.etcdMembers.all(m, has(m.version) && m.version == {new}))"
    );
    let back = format!("({upgrading} ? ({new} == {from} && {} == {}) : {runs})", minor(new), minor(old));
    let [new_text, old_text, from_text] = [new, old, from].map(|v| format!("strings.quote({v})"));
    let but = format!(
        "({upgrading} && {from}.matches({RELEASE}) && {} == {} ? 'but back to %s, which the upgrade under way began with'.format([{from_text}]) : \
         'an older etcd cannot read the data of a newer one: leave it at %s'.format([{old_text}]))",
        minor(from),
        minor(old)
    );
    let (older, both) = (older(new, old), format!("{} && {}", has("self"), has("oldSelf")));
    rule(
        format!("!({both}) || !{new}.matches({RELEASE}) || !{old}.matches({RELEASE}) || !({older}) || {back}"),
        "spec.componentVersions.etcd is %s and was %s: must not be lowered, %s",
        &[&new_text, &old_text, &but],
    )
}

/// etcd's members bear one minor version of difference.
#[must_use]
pub fn no_etcd_minor_skipped() -> Rule {
    rule(
        releases("semver(self.substring(1)).minor() <= semver(oldSelf.substring(1)).minor() + 1"),
        "spec.componentVersions.etcd is %s and was %s: must be raised one minor version at a time, to v3.%s first",
        &[SELF, OLD, "string(semver(oldSelf.substring(1)).minor() + 1)"],
    )
}

/// A text that stays as it was made.
#[must_use]
pub fn immutable(field: &str) -> Rule {
    rule("self == oldSelf", &format!("{field} is %s and was %s: cannot be changed"), &[SELF, OLD])
}

/// A number that stays as it was made.
#[must_use]
pub fn immutable_number(field: &str) -> Rule {
    rule("self == oldSelf", &format!("{field} is %s and was %s: cannot be changed"), &["string(self)", "string(oldSelf)"])
}

/// A fact of the spec that is written once.
#[must_use]
pub fn recorded_once(field: &str) -> Rule {
    Rule::new(format!("!has(oldSelf.{field}) || (has(self.{field}) && self.{field} == oldSelf.{field})")).message(
        format!("spec.{field} is another than was recorded: cannot be changed or removed, delete the Machine to have it replaced").as_str(),
    )
}

/// Each is named as a refusal names it: group/version and resource, and nothing that would stand for several.
#[must_use]
pub fn removed_apis() -> Rule {
    rule(
        "self.all(api, api.matches('^([a-z0-9.-]+/)?v[0-9]+((alpha|beta)[0-9]+)? [a-z]+$'))",
        "spec.upgrade.ignoreRemovedApis is %s: each is one group/version and one resource, e.g. policy/v1beta1 podsecuritypolicies",
        &["self.join(', ')"],
    )
}

/// The instance is written once, but for its zone, which those before did not record.
#[must_use]
pub fn instance_recorded_once() -> Rule {
    let zone = "!has(oldSelf.instance.zone) || (has(self.instance.zone) && self.instance.zone == oldSelf.instance.zone)";
    let same = format!("self.instance.id == oldSelf.instance.id && self.instance.address == oldSelf.instance.address && ({zone})");
    Rule::new(format!("!has(oldSelf.instance) || (has(self.instance) && {same})"))
        .message("spec.instance is another than was recorded: cannot be changed or removed, delete the Machine to have it replaced")
}

/// The control plane's pool is cp, and only it.
#[must_use]
pub fn role_fits_pool() -> Rule {
    rule(
        "(self.role == 'ControlPlane') == (self.pool == 'cp')",
        "spec.role is %s in pool %s: must be ControlPlane in pool cp and Worker in every other",
        &["strings.quote(self.role)", "strings.quote(self.pool)"],
    )
}

/// `<cluster>-<pool>`.
#[must_use]
pub fn pool_object_name() -> Rule {
    rule(
        "self.metadata.name == self.spec.cluster + '-' + self.spec.pool",
        "metadata.name is %s: must be %s-%s, cluster and pool",
        &["strings.quote(self.metadata.name)", "self.spec.cluster", "self.spec.pool"],
    )
}

/// `<cluster>-<pool>-<ordinal>`.
#[must_use]
pub fn machine_name() -> Rule {
    rule(
        // By way of a number, since the length of `string(number)` has no bound in the API server's eyes.
        "self.metadata.name.startsWith(self.spec.cluster + '-' + self.spec.pool + '-') && self.metadata.name.substring(self.spec.cluster.size() + self.spec.pool.size() + 2).matches('^(0|[1-9][0-9]{0,9})$') && int(self.metadata.name.substring(self.spec.cluster.size() + self.spec.pool.size() + 2)) == self.spec.ordinal",
        "metadata.name is %s: must be %s-%s-%s, cluster, pool and ordinal",
        &["strings.quote(self.metadata.name)", "self.spec.cluster", "self.spec.pool", "string(self.spec.ordinal)"],
    )
}

/// One of [`SUPPORTED`], for a pool.
#[must_use]
pub fn supported_pool_version() -> Rule {
    let message = format!("spec.pools[].kubernetesVersion is %s: must be {}", any_of(SUPPORTED));
    rule(format!("self in {}", list(SUPPORTED)), &message, &[SELF])
}

/// `02:30`.
#[must_use]
pub fn time_of_day() -> Rule {
    rule(
        "self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')",
        "spec.maintenance.windows[].start is %s: must be hours and minutes such as 02:30",
        &[SELF],
    )
}

/// A window that opens, and closes within a day.
#[must_use]
pub fn window_minutes() -> Rule {
    rule("self >= 1 && self <= 1440", "spec.maintenance.windows[].minutes is %s: must be between 1 and 1440", &["string(self)"])
}

/// A change needs room above or below.
#[must_use]
pub fn surge_or_unavailable() -> Rule {
    let zero = |field: &str| format!("(self.{field} == 0 || self.{field} == '0%')");
    Rule::new(format!("!({} && {})", zero("maxSurge"), zero("maxUnavailable"))).message(
        "spec.pools[].upgrade.maxSurge and maxUnavailable are both 0: at least one must be 1 or more, or no machine can be changed",
    )
}

//! Schemas of what has none: types of other crates, and plain words.

use crate::rules;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// RFC 3339.
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// `metav1.Condition`, merged by type.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "What holds and what does not.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string", "description": "What it speaks of." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds." },
                "reason": { "type": "string", "description": "Why, in one word that docs/troubleshooting.md explains." },
                "message": { "type": "string", "description": "Why, for people." },
                "lastTransitionTime": { "type": "string", "format": "date-time", "description": "When the status last changed." },
                "observedGeneration": { "type": "integer", "format": "int64", "description": "metadata.generation that it speaks of." }
            }
        }
    })
}

/// [`slipway_model::DeletionPolicy`].
pub fn deletion_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Delete", "Orphan"] })
}

/// [`slipway_model::ProxyMode`].
pub fn proxy_mode(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["nftables", "iptables", "ipvs"] })
}

/// [`slipway_model::TaintEffect`].
pub fn taint_effect(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"] })
}

/// [`slipway_model::Strategy`].
pub fn strategy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["InPlace", "Replace"] })
}

/// [`slipway_model::Allow`].
pub fn allow(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Any", "InPlaceOnly"] })
}

/// [`slipway_model::Healing`].
pub fn healing(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Always", "InWindows"] })
}

/// Days on which a window begins, each once.
pub fn weekdays(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 7,
        "x-kubernetes-list-type": "set",
        "items": { "type": "string", "enum": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"] },
    })
}

/// A condition's status.
pub fn condition_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["True", "False", "Unknown"] })
}

/// [`crate::Amount`]: bounds for those that are numbers, a pattern for those that are texts. No rule: of a text that may be a number, the API server knows
/// no bound for what it costs to match it.
pub fn amount(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "maximum": 1000,
        "pattern": "^(100|[1-9]?[0-9])%$",
    })
}

/// A pool's name. Bounded far above what is valid, as labels are.
pub fn pool_name(_: &mut SchemaGenerator) -> Schema {
    let rules = rules::pool_name();
    json_schema!({ "type": "string", "maxLength": 253, "x-kubernetes-validations": rules })
}

/// Labels of Nodes. The values are bounded far above what is valid: so the rule answers, which names key and value, and its cost stays bounded.
pub fn node_labels(_: &mut SchemaGenerator) -> Schema {
    let rules = rules::labels();
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 253 },
        "x-kubernetes-validations": rules,
    })
}

/// A documented enum of words comes as `oneOf` of constants; structural schemas want `enum`, and the words' meaning in the description.
pub fn plain_enum(schema: &mut Schema) {
    let Some(Value::Array(variants)) = schema.remove("oneOf") else { return };
    let word = |v: &Value| v.get("const").cloned().unwrap_or_default();
    let says = |v: &Value| {
        let meaning = v.get("description").and_then(Value::as_str)?;
        Some(format!("{}: {}", word(v).as_str()?, meaning))
    };
    let meanings: Vec<String> = variants.iter().filter_map(says).collect();
    let own = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let description = format!("{own} {}", meanings.join(" ")).trim().to_owned();
    schema.insert("type".into(), json!("string"));
    schema.insert("enum".into(), Value::Array(variants.iter().map(word).collect()));
    schema.insert("description".into(), json!(description));
}

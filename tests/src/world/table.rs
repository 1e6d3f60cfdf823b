//! A DynamoDB table, where the sources are.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType, StreamSpecification, StreamViewType,
};

use crate::Outcome;
use crate::dynamodb_local::DynamoDbLocal;
use crate::place::Place;

/// What it is called.
const TABLE: &str = "items";
/// Characters of each item that say nothing.
const FILLING: usize = 200;

/// A table with a stream, on a server of its own that ends with the last of its
/// clones.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    server: Arc<DynamoDbLocal>,
}

impl Table {
    pub(super) async fn start(place: &Place) -> Outcome<Self> {
        let server = Arc::new(DynamoDbLocal::start_at(&place.prefix, &place.address).await);
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("local", "local", None, None, "test"))
            .endpoint_url(server.endpoint())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let client = Client::from_conf(config);
        let stream = StreamSpecification::builder()
            .stream_enabled(true)
            .stream_view_type(StreamViewType::NewAndOldImages);
        let id = AttributeDefinition::builder()
            .attribute_name("id")
            .attribute_type(ScalarAttributeType::S);
        let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
        client
            .create_table()
            .table_name(TABLE)
            .attribute_definitions(id.build()?)
            .key_schema(key.build()?)
            .billing_mode(BillingMode::PayPerRequest)
            .stream_specification(stream.build()?)
            .send()
            .await?;
        Ok(Self { client, server })
    }

    /// The keys of a `[source]` that reads it.
    #[must_use]
    pub fn source(&self) -> String {
        let endpoint = self.server.endpoint();
        format!(
            "kind = \"dynamodb\"\ntable = \"{TABLE}\"\nregion = \"us-east-1\"\n\
             endpoint = \"{endpoint}\"\naccess-key = \"local\"\nsecret-key = \"local\"\n"
        )
    }

    /// Writes a version of an item.
    ///
    /// # Errors
    ///
    /// What the server answers.
    pub async fn put(&self, id: &str, version: u64) -> Outcome<()> {
        let put = self.client.put_item().table_name(TABLE).item("id", text(id));
        let put = put.item("version", AttributeValue::N(version.to_string()));
        put.item("filling", text(&"x".repeat(FILLING))).send().await?;
        Ok(())
    }

    /// Deletes an item.
    ///
    /// # Errors
    ///
    /// What the server answers.
    pub async fn delete(&self, id: &str) -> Outcome<()> {
        self.client.delete_item().table_name(TABLE).key("id", text(id)).send().await?;
        Ok(())
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

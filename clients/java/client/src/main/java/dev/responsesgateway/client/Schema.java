package dev.responsesgateway.client;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.datatype.jdk8.Jdk8Module;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/**
 * The JSON Schema of a record as Jackson reads it, members in the order of its components: the upstream's prompt cache
 * depends on the order. Every member is required, as strict mode wants.
 *
 * @param strict false if something has no place in strict mode: maps, free JSON
 */
record Schema(String json, boolean strict) {
  static final JsonMapper MAPPER =
      JsonMapper.builder()
          .addModule(new Jdk8Module())
          .enable(DeserializationFeature.FAIL_ON_NULL_CREATOR_PROPERTIES)
          .enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES)
          .disable(SerializationFeature.FAIL_ON_EMPTY_BEANS)
          .build();

  private static final Set<Class<?>> INTEGERS =
      Set.of(
          int.class, Integer.class, long.class, Long.class, short.class, Short.class, byte.class, Byte.class,
          java.math.BigInteger.class);
  private static final Set<Class<?>> NUMBERS =
      Set.of(double.class, Double.class, float.class, Float.class, java.math.BigDecimal.class);

  static Schema of(Class<? extends Record> type) {
    var writer = new Writer();
    var node = writer.object(MAPPER.constructType(type), List.of());
    return new Schema(node.toString(), writer.strict);
  }

  private static final class Writer {
    private boolean strict = true;

    ObjectNode object(JavaType type, List<Class<?>> outer) {
      if (outer.contains(type.getRawClass())) {
        throw new IllegalArgumentException(type.getRawClass().getName() + " contains itself");
      }
      var inner = new java.util.ArrayList<>(outer);
      inner.add(type.getRawClass());
      var node = MAPPER.createObjectNode().put("type", "object");
      var properties = node.putObject("properties");
      var required = node.putArray("required");
      for (var property : MAPPER.getDeserializationConfig().introspect(type).findProperties()) {
        var member = value(property.getPrimaryType(), inner);
        var description = property.getMetadata().getDescription();
        if (description != null) {
          member.put("description", description);
        }
        properties.set(property.getName(), member);
        required.add(property.getName());
      }
      node.put("additionalProperties", false);
      return node;
    }

    private ObjectNode value(JavaType type, List<Class<?>> outer) {
      var raw = type.getRawClass();
      if (raw == Optional.class) {
        return nullable(value(type.containedType(0), outer));
      }
      var node = MAPPER.createObjectNode();
      if (CharSequence.class.isAssignableFrom(raw) || raw == char.class || raw == Character.class) {
        return node.put("type", "string");
      }
      if (raw == boolean.class || raw == Boolean.class) {
        return node.put("type", "boolean");
      }
      if (INTEGERS.contains(raw)) {
        return node.put("type", "integer");
      }
      if (NUMBERS.contains(raw)) {
        return node.put("type", "number");
      }
      if (type.isEnumType()) {
        var values = node.put("type", "string").putArray("enum");
        for (var constant : raw.getEnumConstants()) {
          values.add(MAPPER.<JsonNode>valueToTree(constant));
        }
        return node;
      }
      if (JsonNode.class.isAssignableFrom(raw) || raw == Object.class) {
        strict = false;
        return node;
      }
      if (type.isMapLikeType()) {
        strict = false;
        node.put("type", "object").set("additionalProperties", value(type.getContentType(), outer));
        return node;
      }
      if (type.isCollectionLikeType() || type.isArrayType()) {
        node.put("type", "array").set("items", value(type.getContentType(), outer));
        return node;
      }
      if (raw.isRecord()) {
        return object(type, outer);
      }
      throw new IllegalArgumentException(raw.getName() + " has no JSON Schema");
    }

    private static ObjectNode nullable(ObjectNode node) {
      if (node.has("enum")) {
        node.withArray("enum").addNull();
      }
      if (node.has("type")) {
        var name = node.get("type").asText();
        node.putArray("type").add(name).add("null");
      }
      return node;
    }
  }
}

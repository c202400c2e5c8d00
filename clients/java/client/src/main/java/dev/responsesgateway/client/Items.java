package dev.responsesgateway.client;

import com.google.protobuf.ByteString;
import dev.responsesgateway.v1.ContentPart;
import dev.responsesgateway.v1.FunctionCallOutput;
import dev.responsesgateway.v1.InputItem;
import dev.responsesgateway.v1.Message;
import java.util.List;

/** Makes input items. */
public final class Items {
  private Items() {}

  /** An input of one user message. */
  public static List<InputItem> text(String text) {
    return List.of(message("user", text));
  }

  /** One message of user, assistant, system or developer. */
  public static InputItem message(String role, String text) {
    return InputItem.newBuilder().setMessage(Message.newBuilder().setRole(role).setText(text)).build();
  }

  /** One message of several parts: texts, images and files in their order. See {@link Parts}. */
  public static InputItem message(String role, ContentPart... parts) {
    return InputItem.newBuilder()
        .setMessage(Message.newBuilder().setRole(role).addAllContent(List.of(parts)))
        .build();
  }

  /** The result of a function call. */
  public static InputItem callOutput(String callId, String output) {
    return InputItem.newBuilder()
        .setFunctionCallOutput(FunctionCallOutput.newBuilder().setCallId(callId).setOutput(output))
        .build();
  }

  /** An input item as the upstream's JSON, for kinds that this client does not know. */
  public static InputItem json(String json) {
    return InputItem.newBuilder().setJson(ByteString.copyFromUtf8(json)).build();
  }
}

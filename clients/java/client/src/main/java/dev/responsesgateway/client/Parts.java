package dev.responsesgateway.client;

import dev.responsesgateway.v1.ContentPart;
import dev.responsesgateway.v1.InputFile;
import dev.responsesgateway.v1.InputImage;
import dev.responsesgateway.v1.InputText;
import java.util.Base64;

/** Makes parts of messages, for {@link Items#message(String, ContentPart...)}. */
public final class Parts {
  private Parts() {}

  /** Text. */
  public static ContentPart text(String text) {
    return ContentPart.newBuilder().setInputText(InputText.newBuilder().setText(text)).build();
  }

  /** An image that the upstream fetches. */
  public static ContentPart imageUrl(String url) {
    return image(InputImage.newBuilder().setImageUrl(url));
  }

  /** An image; its media type is for instance {@code image/png}. */
  public static ContentPart image(String mediaType, byte[] data) {
    return imageUrl(dataUrl(mediaType, data));
  }

  /** An image that was uploaded to the upstream before. */
  public static ContentPart imageFile(String fileId) {
    return image(InputImage.newBuilder().setFileId(fileId));
  }

  /** A file that the upstream fetches. */
  public static ContentPart fileUrl(String url) {
    return file(InputFile.newBuilder().setFileUrl(url));
  }

  /** A file with its name; its media type is for instance {@code application/pdf}. */
  public static ContentPart file(String name, String mediaType, byte[] data) {
    return file(InputFile.newBuilder().setFilename(name).setFileData(dataUrl(mediaType, data)));
  }

  /** A file that was uploaded to the upstream before. */
  public static ContentPart fileId(String fileId) {
    return file(InputFile.newBuilder().setFileId(fileId));
  }

  private static ContentPart image(InputImage.Builder image) {
    return ContentPart.newBuilder().setInputImage(image).build();
  }

  private static ContentPart file(InputFile.Builder file) {
    return ContentPart.newBuilder().setInputFile(file).build();
  }

  private static String dataUrl(String mediaType, byte[] data) {
    return "data:" + mediaType + ";base64," + Base64.getEncoder().encodeToString(data);
  }
}

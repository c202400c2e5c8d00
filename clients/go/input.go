package gateway

import (
	"encoding/base64"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Item is one input item.
type Item = gatewayv1.InputItem

// Part is a part of a message: text, an image or a file.
type Part = gatewayv1.ContentPart

// ToolSpec is what the model is told of a tool. That of a function is [Tool.Proto]; see also [JSONTool].
type ToolSpec = gatewayv1.Tool

// Ptr is for optional fields: Request{Temperature: gateway.Ptr(0.2)}.
func Ptr[T any](value T) *T { return &value }

// Text is an input of one user message.
func Text(text string) []*Item { return []*Item{Message("user", text)} }

// Message is one message of user, assistant, system or developer.
func Message(role, text string) *Item {
	return &Item{Kind: &gatewayv1.InputItem_Message{Message: &gatewayv1.Message{Role: role, Text: &text}}}
}

// MessageOf is one message of several parts: texts, images and files in their order.
func MessageOf(role string, parts ...*Part) *Item {
	return &Item{Kind: &gatewayv1.InputItem_Message{Message: &gatewayv1.Message{Role: role, Content: parts}}}
}

// TextPart is text for [MessageOf].
func TextPart(text string) *Part {
	return &Part{Kind: &gatewayv1.ContentPart_InputText{InputText: &gatewayv1.InputText{Text: text}}}
}

// ImageURL is an image that the upstream fetches.
func ImageURL(url string) *Part { return image(&gatewayv1.InputImage{ImageUrl: &url}) }

// ImageData is an image; its media type is for instance "image/png".
func ImageData(mediaType string, data []byte) *Part { return ImageURL(dataURL(mediaType, data)) }

// ImageFile is an image that was uploaded to the upstream before.
func ImageFile(fileID string) *Part { return image(&gatewayv1.InputImage{FileId: &fileID}) }

// FileURL is a file that the upstream fetches.
func FileURL(url string) *Part { return file(&gatewayv1.InputFile{FileUrl: &url}) }

// FileData is a file with its name; its media type is for instance "application/pdf".
func FileData(name, mediaType string, data []byte) *Part {
	url := dataURL(mediaType, data)
	return file(&gatewayv1.InputFile{Filename: &name, FileData: &url})
}

// FileID is a file that was uploaded to the upstream before.
func FileID(fileID string) *Part { return file(&gatewayv1.InputFile{FileId: &fileID}) }

// CallOutput is the result of a function call.
func CallOutput(callID, output string) *Item {
	return &Item{Kind: &gatewayv1.InputItem_FunctionCallOutput{
		FunctionCallOutput: &gatewayv1.FunctionCallOutput{CallId: &callID, Output: &output},
	}}
}

// JSONItem is an input item as the upstream's JSON, for kinds that this client does not know.
func JSONItem(json []byte) *Item { return &Item{Kind: &gatewayv1.InputItem_Json{Json: json}} }

// JSONTool is a tool as the upstream's JSON, for instance {"type":"web_search"}.
func JSONTool(json string) *ToolSpec {
	return &ToolSpec{Kind: &gatewayv1.Tool_Json{Json: []byte(json)}}
}

func image(image *gatewayv1.InputImage) *Part {
	return &Part{Kind: &gatewayv1.ContentPart_InputImage{InputImage: image}}
}

func file(file *gatewayv1.InputFile) *Part {
	return &Part{Kind: &gatewayv1.ContentPart_InputFile{InputFile: file}}
}

func dataURL(mediaType string, data []byte) string {
	return "data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(data)
}

// Renders templates as Ollama does: Go's own text/template, with what it hands over (a request's system messages joined, its messages
// with thinking and tool calls, its tools as JSON in the order of Ollama's fields) and its one function of its own. In: a list of
// {template, asked: [{system, messages, tools, think}]} on stdin; out: a list of lists of texts.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type parameters struct {
	Type       string         `json:"type"`
	Required   []string       `json:"required,omitempty"`
	Properties map[string]any `json:"properties"`
}

type function struct {
	Name        string     `json:"name"`
	Description string     `json:"description"`
	Parameters  parameters `json:"parameters"`
}

type tool struct {
	Type     string   `json:"type"`
	Function function `json:"function"`
}

type called struct {
	Name      string
	Arguments map[string]any
}

type call struct{ Function called }

type message struct {
	Role, Content, Thinking string
	ToolCalls               []call
}

type asked struct {
	System   string
	Messages []message
	Tools    []tool
	Think    *bool
}

type task struct {
	Template string
	Asked    []asked
}

func main() {
	var tasks []task
	if err := json.NewDecoder(os.Stdin).Decode(&tasks); err != nil {
		panic(err)
	}
	asJSON := func(value any) string {
		text, _ := json.Marshal(value)
		return string(text)
	}
	texts := [][]string{}
	for _, t := range tasks {
		parsed := template.New("").Option("missingkey=zero").Funcs(template.FuncMap{"json": asJSON})
		template.Must(parsed.Parse(t.Template))
		rendered := []string{}
		for _, a := range t.Asked {
			var text strings.Builder
			values := map[string]any{
				"System": a.System, "Messages": a.Messages, "Tools": a.Tools, "Response": "",
				"Think": a.Think != nil && *a.Think, "IsThinkSet": a.Think != nil,
			}
			if err := parsed.Execute(&text, values); err != nil {
				panic(err)
			}
			rendered = append(rendered, text.String())
		}
		texts = append(texts, rendered)
	}
	json.NewEncoder(os.Stdout).Encode(texts)
}

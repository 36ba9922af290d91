package message

import (
	"fmt"
	"strings"
)

// The names of the ready templates.
const (
	Generic  = "generic"
	Slack    = "slack"
	Discord  = "discord"
	Telegram = "telegram"
	Ntfy     = "ntfy"
	Matrix   = "matrix"
)

// ReadyNames are the ready templates, in the order in which they are shown.
func ReadyNames() []string { return []string{Generic, Slack, Discord, Telegram, Ntfy, Matrix} }

// NeedsTo says whether a ready template names its receiver in the body: Telegram's chat_id, ntfy's topic.
func NeedsTo(name string) bool { return name == Telegram || name == Ntfy }

// ReadyTemplate returns a ready template.
func ReadyTemplate(name string) (*Template, error) {
	text, ok := readyTemplates()[name]
	if !ok {
		return nil, fmt.Errorf("no template has this name; there are %s", strings.Join(ReadyNames(), ", "))
	}
	return Parse(text, JSON, nil)
}

// readyTemplates are the templates by name. An account stands as code, so that a chat program makes neither a link nor
// a mention of a name that an attacker chose.
func readyTemplates() map[string]string {
	return map[string]string{
		Generic: `{{json .Message}}`,
		// https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks; Mattermost and Rocket.Chat read it
		// too.
		Slack: `{"text": {{json (printf "*%s*\n%s%s" (slack .Title) (slack .Text) (label "\nAccount: " (slack (code .Account)) ""))}},
 "unfurl_links": false, "unfurl_media": false}`,
		// https://docs.discord.com/developers/resources/webhook, Execute Webhook: content has up to 2000 characters;
		// flag 4 suppresses embeds.
		Discord: `{"content": {{json (printf "**%s**\n%s%s" (cut 400 (markdown .Title)) (cut 1300 (markdown .Text)) (label "\nAccount: " (code .Account) ""))}},
 "allowed_mentions": {"parse": []}, "flags": 4}`,
		// https://core.telegram.org/bots/api#sendmessage
		Telegram: `{"chat_id": {{json .To}}, "parse_mode": "HTML", "link_preview_options": {"is_disabled": true},
 "text": {{json (printf "<b>%s</b>\n%s%s" (html .Title) (html .Text) (label "\nAccount: <code>" (html .Account) "</code>"))}}}`,
		// https://docs.ntfy.sh/publish/#publish-as-json
		Ntfy: `{"topic": {{json .To}}, "title": {{json .Title}}, "message": {{json (printf "%s%s" .Text (label "\nAccount: " .Account ""))}},
 {{if eq .Action "breach"}}"priority": 5, "tags": ["rotating_light"]{{else if eq .Action "ban"}}"tags": ["no_entry"]{{else}}"tags": ["warning"]{{end}}}`,
		// https://spec.matrix.org/latest/client-server-api/#mnotice
		Matrix: `{"msgtype": "m.notice", "m.mentions": {}, "body": {{json (printf "%s\n%s%s" .Title .Text (label "\nAccount: " .Account ""))}},
 "format": "org.matrix.custom.html",
 "formatted_body": {{json (printf "<b>%s</b><br>%s%s" (html .Title) (html .Text) (label "<br>Account: <code>" (html .Account) "</code>"))}}}`,
	}
}

# shellcheck shell=sh
# XML without OpenNebula's libraries: elements, text, CDATA and the five entities, which is all that its XML holds.

# PATH: the text of every element with that path (/VM/TEMPLATE/DISK/TM_MAD), one a line, of the XML on the input.
xml_values() {
    awk -v wanted="$1" '
    function decoded(text) {
        gsub(/&lt;/, "<", text); gsub(/&gt;/, ">", text); gsub(/&quot;/, "\"", text); gsub(/&apos;/, "\047", text)
        gsub(/&amp;/, "\\&", text)
        return text
    }
    { document = document $0 "\n" }
    END {
        while ((open = index(document, "<")) > 0) {
            if (path == wanted) value = value decoded(substr(document, 1, open - 1))
            document = substr(document, open)
            if (substr(document, 1, 9) == "<![CDATA[") {
                close_at = index(document, "]]>")
                if (close_at == 0) exit
                if (path == wanted) value = value substr(document, 10, close_at - 10)
                document = substr(document, close_at + 3)
                continue
            }
            if (substr(document, 1, 4) == "<!--") {
                close_at = index(document, "-->")
                if (close_at == 0) exit
                document = substr(document, close_at + 3)
                continue
            }
            close_at = index(document, ">")
            if (close_at == 0) exit
            tag = substr(document, 2, close_at - 2)
            document = substr(document, close_at + 1)
            if (tag ~ /^[?!]/) continue
            if (tag ~ /^\//) {
                if (path == wanted) { gsub(/\n/, " ", value); print value }
                sub(/\/[^\/]*$/, "", path)
                continue
            }
            empty = tag ~ /\/$/
            sub(/[[:space:]\/].*$/, "", tag)
            if (empty) continue
            path = path "/" tag
            value = ""
        }
    }'
}

# PATH: the last of them, which in a history is the newest.
xml_last() {
    xml_values "$1" | tail -n 1
}

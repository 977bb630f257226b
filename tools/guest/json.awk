# Flattens JSON into lines "path TAB value": {"a":{"b":["x",1]}} gives "a.b.0 x" and "a.b.1 1".
# Broken JSON gives what was read before the break. A plain "key: value" file (simple YAML) is taken line by line.
function ws() { while (p <= n && substr(t, p, 1) ~ /[ \t\r\n]/) p++ }
function quoted(    out, c) {
    if (substr(t, p, 1) != "\"") exit 1
    for (p++; (c = substr(t, p, 1)) != "\""; p++) {
        if (p > n) exit 1
        if (c == "\\") {
            c = substr(t, ++p, 1)
            if (c == "u") { c = "?"; p += 4 }
            else if (c ~ /[bfnrt]/) c = " "
        }
        out = out c
    }
    p++
    return out
}
function value(path,    c, key, i) {
    ws()
    c = substr(t, p, 1)
    if (c == "{" || c == "[") {
        p++
        ws()
        if (substr(t, p, 1) ~ /[]}]/) { p++; return }
        for (i = 0; ; i++) {
            ws()
            key = i
            if (c == "{") { key = quoted(); ws(); p++ }
            value(path == "" ? key : path "." key)
            ws()
            if (substr(t, p++, 1) != ",") return
        }
    }
    if (c == "\"") { print path "\t" quoted(); return }
    if (!match(substr(t, p), /^[^],} \t\r\n]+/)) exit 1
    print path "\t" substr(t, p, RLENGTH)
    p += RLENGTH
}
{ t = t $0 "\n" }
END {
    n = length(t)
    p = 1
    ws()
    if (substr(t, p, 1) == "{") { value(""); exit 0 }
    lines = split(t, line, "\n")
    for (i = 1; i <= lines; i++)
        if (match(line[i], /^[A-Za-z-]+: */)) {
            key = line[i]
            sub(/:.*/, "", key)
            print key "\t" substr(line[i], RLENGTH + 1)
        }
}

# sql/queries/*.sql -> C strings: operation_claim.sql becomes SQL_OPERATION_CLAIM; where WITH_ALL_QUERIES is defined, there is also an array of all.
# With -v migrations=1: sql/migrations/*.sql -> rows {number, name, sql} of an array. Comment lines of queries are left out; those of migrations
# stay, as the checksum is of the file.
function quoted(line) {
    gsub(/\\/, "\\\\", line)
    gsub(/"/, "\\\"", line)
    return "\"" line "\\n\""
}
function finish() {
    if (open)
        print migrations ? "    },\n" : "    ;"
}
FNR == 1 {
    finish()
    open = 1
    name = FILENAME
    sub(/.*\//, "", name)
    sub(/\.sql$/, "", name)
    if (migrations)
        printf "    {%d, \"%s\",\n", substr(name, 1, 4) + 0, name
    else
        all = all "    {\"" name "\", SQL_" toupper(name) "},\n"
    if (!migrations)
        printf "static const char SQL_%s[] __attribute__((unused)) =\n", toupper(name)
}
!migrations && /^[ \t]*--/ { next }
!migrations && /^[ \t]*$/ { next }
{ print "    " quoted($0) }
END {
    finish()
    if (!migrations)
        printf "#ifdef WITH_ALL_QUERIES\nstatic const struct {\n    const char *name, *sql;\n} all_queries[] = {\n%s};\n#endif\n", all
}

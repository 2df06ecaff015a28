/* The compiled twin of the functions in scanning.py, which says what they are for. Both read the
 * same heads, and give the same for each; tests/proxy/test_scanning.py holds them to that.
 *
 * Nothing is allocated before a head is known to be good, nothing recurses, and nothing is read
 * outside [at, end): every function is given both, and looks before it reads.
 */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* More lines than any client sends: a head that has more is for the full path. */
#define MOST_FIELDS 128

/* By byte: its lower case where it is a tchar (RFC 9110 5.6.2), else 0. */
static unsigned char name_byte[256];
/* By byte: whether the fast path takes it in a request target: visible ASCII but for "#". */
static unsigned char target_byte[256];

typedef enum {
    PLAIN,
    HOST,
    PROTO,
    CONNECTION,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    NOT_HERE, /* what bears it is for the full path */
} Meaning;

typedef struct {
    const char *name;
    Meaning meaning;
} Known;

static const Known KNOWN[] = {
    {"host", HOST},
    {"x-forwarded-proto", PROTO},
    {"connection", CONNECTION},
    {"if-none-match", IF_NONE_MATCH},
    {"if-modified-since", IF_MODIFIED_SINCE},
    /* Framing (RFC 9112 6), the connection (RFC 9110 7.6.1, 7.8; RFC 7540 3.2.1), and what goes
     * with them (RFC 9110 6.6.2, 7.6.2, 10.1.1, 10.1.4). */
    {"content-length", NOT_HERE}, {"transfer-encoding", NOT_HERE}, {"te", NOT_HERE},
    {"trailer", NOT_HERE}, {"expect", NOT_HERE}, {"upgrade", NOT_HERE}, {"keep-alive", NOT_HERE},
    {"http2-settings", NOT_HERE}, {"max-forwards", NOT_HERE},
    /* What asks for more than the stored response (RFC 9110 13.1, 14.2; RFC 9111 5.2.1, 5.4). */
    {"range", NOT_HERE}, {"if-range", NOT_HERE}, {"if-match", NOT_HERE},
    {"if-unmodified-since", NOT_HERE}, {"cache-control", NOT_HERE}, {"pragma", NOT_HERE},
};
#define KNOWN_COUNT (sizeof KNOWN / sizeof KNOWN[0])

/* KNOWN by hash: 1 + its index; 0 is a free slot, and most are free. */
#define SLOTS 256
static unsigned char slots[SLOTS];

/* Part of a head. */
typedef struct {
    const char *at;
    Py_ssize_t length;
} Part;

typedef struct {
    Part name;     /* as it came */
    Part value;    /* without the OWS around it */
    uint32_t hash; /* of the name in lower case */
} Line;

static inline uint32_t
hashed(uint32_t hash, unsigned char byte)
{
    return (hash << 5 | hash >> 27) ^ byte;
}

/* Whether they are alike but for the case of letters. For names, and lower-case texts of tchars. */
static int
same_name(Part one, const char *other, Py_ssize_t length)
{
    if (one.length != length) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < length; i++) {
        if (name_byte[(unsigned char)one.at[i]] != name_byte[(unsigned char)other[i]]) {
            return 0;
        }
    }
    return 1;
}

#define IS(part, text) same_name(part, text, (Py_ssize_t)sizeof text - 1)

static Meaning
meaning_of(const Line *line)
{
    for (uint32_t slot = line->hash % SLOTS; slots[slot]; slot = (slot + 1) % SLOTS) {
        const Known *known = &KNOWN[slots[slot] - 1];
        if (same_name(line->name, known->name, (Py_ssize_t)strlen(known->name))) {
            return known->meaning;
        }
    }
    if (line->name.length >= 6 && IS(((Part){line->name.at, 6}), "proxy-")) {
        return NOT_HERE;
    }
    return PLAIN;
}

static inline int
is_ows(char byte)
{
    return byte == ' ' || byte == '\t';
}

/* RFC 9110 5.5: VCHAR, SP and HTAB; bytes from 0x80 on (obs-text) only with that in `allowed`. */
static int
is_value(const char *at, const char *end, int allowed)
{
    int bad = 0;
    for (; at < end; at++) {
        unsigned char byte = (unsigned char)*at;
        bad |= (byte < 0x20 && byte != '\t') | (byte == 0x7f) | (byte & 0x80 & ~allowed);
    }
    return !bad;
}

/* The readers give where they have come to; NULL: that is not there, or not to be taken. */

static const char *
read_text(const char *at, const char *end, const char *text)
{
    size_t length = strlen(text);
    return (size_t)(end - at) >= length && memcmp(at, text, length) == 0 ? at + length : NULL;
}

/* RFC 9112 3: method SP request-target SP HTTP-version, the target in origin-form (3.2.1). */
static const char *
read_request_line(const char *at, const char *end)
{
    const char *target = read_text(at, end, "GET /");
    if (target == NULL && (target = read_text(at, end, "HEAD /")) == NULL) {
        return NULL;
    }
    while (target < end && target_byte[(unsigned char)*target]) {
        target++;
    }
    return read_text(target, end, " HTTP/1.1\r\n");
}

/* RFC 9112 5: field-name ":" OWS field-value OWS CRLF. */
static const char *
read_line(const char *at, const char *end, int allowed, Line *line)
{
    line->name.at = at;
    line->hash = 0;
    for (unsigned char byte; at < end && (byte = name_byte[(unsigned char)*at]); at++) {
        line->hash = hashed(line->hash, byte);
    }
    line->name.length = at - line->name.at;
    if (line->name.length == 0 || at == end || *at != ':') {
        return NULL;
    }
    at++;
    const char *line_end = memchr(at, '\r', (size_t)(end - at));
    if (line_end == NULL || end - line_end < 2 || line_end[1] != '\n'
        || !is_value(at, line_end, allowed)) {
        return NULL;
    }
    const char *value_end = line_end;
    while (at < value_end && is_ows(*at)) {
        at++;
    }
    while (at < value_end && is_ows(value_end[-1])) {
        value_end--;
    }
    line->value = (Part){at, value_end - at};
    return line_end + 2;
}

/* The lines up to the empty one (RFC 9112 2.1), no more than `most`: how many into `count`. */
static const char *
read_lines(const char *at, const char *end, int allowed, Line lines[MOST_FIELDS], Py_ssize_t most,
           Py_ssize_t *count)
{
    const char *behind;
    *count = 0;
    while ((behind = read_text(at, end, "\r\n")) == NULL) {
        if (*count == most || (at = read_line(at, end, allowed, &lines[*count])) == NULL) {
            return NULL;
        }
        ++*count;
    }
    return behind;
}

/* Whether one of the first `count` lines has the name of the one behind them. */
static int
is_repeated(const Line *lines, Py_ssize_t count)
{
    const Line *line = &lines[count];
    for (Py_ssize_t i = 0; i < count; i++) {
        if (lines[i].hash == line->hash
            && same_name(lines[i].name, line->name.at, line->name.length)) {
            return 1;
        }
    }
    return 0;
}

static PyObject *
to_bytes(Part part)
{
    return part.at == NULL ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize(part.at, part.length);
}

/* The parts, one to a line. */
static PyObject *
key_of(const Part parts[3])
{
    PyObject *key = PyBytes_FromStringAndSize(
        NULL, parts[0].length + 1 + parts[1].length + 1 + parts[2].length);
    if (key == NULL) {
        return NULL;
    }
    char *to = PyBytes_AsString(key);
    for (int i = 0; i < 3; i++) {
        if (i > 0) {
            *to++ = '\n';
        }
        memcpy(to, parts[i].at, (size_t)parts[i].length);
        to += parts[i].length;
    }
    return key;
}

/* A tuple of these, which it takes over; NULL where one of them could not be made. */
static PyObject *
packed(int count, PyObject *const items[])
{
    PyObject *tuple = PyTuple_New(count);
    for (int i = 0; i < count; i++) {
        if (tuple == NULL || items[i] == NULL) {
            Py_CLEAR(tuple);
            Py_XDECREF(items[i]);
        }
        else {
            PyTuple_SetItem(tuple, i, items[i]);
        }
    }
    return tuple;
}

/* The argument, a number from 0 to `most`, or `most` where it is larger. */
static int
take_number(PyObject *argument, Py_ssize_t most, Py_ssize_t *number)
{
    *number = PyLong_AsSsize_t(argument);
    if (*number < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a number must not be negative");
        }
        return 0;
    }
    if (*number > most) {
        *number = most;
    }
    return 1;
}

static PyObject *
scan(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t argument_count)
{
    char *data;
    Py_ssize_t length, start, max_bytes, max_fields, count;
    if (argument_count != 4) {
        PyErr_SetString(PyExc_TypeError, "scan takes data, start, max_bytes and max_fields");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &data, &length) < 0
        || !take_number(arguments[1], length, &start)
        || !take_number(arguments[2], length - start, &max_bytes)
        || !take_number(arguments[3], MOST_FIELDS, &max_fields)) {
        return NULL;
    }

    Line lines[MOST_FIELDS];
    const char *at = data + start, *end = at + max_bytes;
    const char *first_line = read_request_line(at, end);
    if (first_line == NULL) {
        Py_RETURN_NONE;
    }
    const char *behind = read_lines(first_line, end, 0, lines, max_fields, &count);
    if (behind == NULL) {
        Py_RETURN_NONE;
    }
    Part host = {NULL, 0}, proto = {"", 0}, none_match = {NULL, 0}, modified_since = {NULL, 0};
    int closing = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (is_repeated(lines, i)) {
            Py_RETURN_NONE;
        }
        Part value = lines[i].value;
        switch (meaning_of(&lines[i])) {
        case PLAIN:
            break;
        case HOST:
            host = value;
            break;
        case PROTO:
            proto = value;
            break;
        case CONNECTION: /* RFC 9112 9.3, 9.6 */
            closing = IS(value, "close");
            if (!closing && !IS(value, "keep-alive")) {
                Py_RETURN_NONE;
            }
            break;
        case IF_NONE_MATCH:
            none_match = value;
            break;
        case IF_MODIFIED_SINCE:
            modified_since = value;
            break;
        case NOT_HERE:
            Py_RETURN_NONE;
        }
    }
    if (host.at == NULL) { /* RFC 9112 3.2 */
        Py_RETURN_NONE;
    }

    int conditional = none_match.at != NULL || modified_since.at != NULL;
    Part line = {at, first_line - 2 - at};
    return packed(4, (PyObject *[]){
        PyLong_FromSsize_t(behind - data),
        key_of((Part[]){line, host, proto}),
        PyBool_FromLong(closing),
        conditional
            ? packed(2, (PyObject *[]){to_bytes(none_match), to_bytes(modified_since)})
            : Py_NewRef(Py_None),
    });
}

static PyObject *
value_of(PyObject *name, const Line *lines, Py_ssize_t count)
{
    char *text;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(name, &text, &length) < 0) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (same_name(lines[i].name, text, length)) {
            return to_bytes(lines[i].value);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
values(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t argument_count)
{
    char *data;
    Py_ssize_t length, start, count;
    if (argument_count != 3 || !PyTuple_Check(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "values takes data, start and a tuple of names");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &data, &length) < 0
        || !take_number(arguments[1], length, &start)) {
        return NULL;
    }
    Line lines[MOST_FIELDS];
    const char *end = data + length, *first_line = read_request_line(data + start, end);
    if (first_line == NULL || !read_lines(first_line, end, 0, lines, MOST_FIELDS, &count)) {
        PyErr_SetString(PyExc_ValueError, "no head that can be read here");
        return NULL;
    }
    Py_ssize_t wanted = PyTuple_Size(arguments[2]);
    PyObject *found = PyTuple_New(wanted);
    for (Py_ssize_t i = 0; found != NULL && i < wanted; i++) {
        PyObject *bytes = value_of(PyTuple_GetItem(arguments[2], i), lines, count);
        if (bytes == NULL) {
            Py_CLEAR(found);
        }
        else {
            PyTuple_SetItem(found, i, bytes);
        }
    }
    return found;
}

static PyObject *
pair_of(const Line *line)
{
    return packed(2, (PyObject *[]){to_bytes(line->name), to_bytes(line->value)});
}

static PyObject *
scan_response(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t argument_count)
{
    char *data;
    Py_ssize_t length, max_bytes, max_fields, count;
    if (argument_count != 3) {
        PyErr_SetString(PyExc_TypeError, "scan_response takes data, max_bytes and max_fields");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &data, &length) < 0
        || !take_number(arguments[1], length, &max_bytes)
        || !take_number(arguments[2], MOST_FIELDS, &max_fields)) {
        return NULL;
    }
    /* RFC 9112 4: HTTP-version SP status-code SP [ reason-phrase ] */
    const char *end = data + max_bytes, *code = read_text(data, end, "HTTP/1.1 ");
    if (code == NULL || end - code < 4 || code[0] < '2' || code[0] > '5' || code[1] < '0'
        || code[1] > '9' || code[2] < '0' || code[2] > '9' || code[3] != ' ') {
        Py_RETURN_NONE;
    }
    const char *reason = code + 4, *line_end = memchr(reason, '\r', (size_t)(end - reason));
    Line lines[MOST_FIELDS];
    if (line_end == NULL || end - line_end < 2 || line_end[1] != '\n'
        || !is_value(reason, line_end, 0x80)) {
        Py_RETURN_NONE;
    }
    const char *behind = read_lines(line_end + 2, end, 0x80, lines, max_fields, &count);
    if (behind == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *pairs = PyTuple_New(count);
    for (Py_ssize_t i = 0; pairs != NULL && i < count; i++) {
        PyObject *pair = pair_of(&lines[i]);
        if (pair == NULL) {
            Py_CLEAR(pairs);
        }
        else {
            PyTuple_SetItem(pairs, i, pair);
        }
    }
    int status = (code[0] - '0') * 100 + (code[1] - '0') * 10 + (code[2] - '0');
    return packed(4, (PyObject *[]){
        PyLong_FromSsize_t(behind - data),
        PyLong_FromLong(status),
        to_bytes((Part){reason, line_end - reason}),
        pairs,
    });
}

static int
fill_tables(PyObject *Py_UNUSED(module))
{
    for (int byte = 0x21; byte < 0x7f; byte++) {
        target_byte[byte] = byte != '#';
        if (strchr("\"(),/:;<=>?@[\\]{}", byte) == NULL) {
            name_byte[byte] = (unsigned char)(byte >= 'A' && byte <= 'Z' ? byte + 0x20 : byte);
        }
    }
    memset(slots, 0, sizeof slots);
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        uint32_t slot = 0;
        for (const char *at = KNOWN[i].name; *at; at++) {
            slot = hashed(slot, (unsigned char)*at);
        }
        for (slot %= SLOTS; slots[slot]; slot = (slot + 1) % SLOTS) {
        }
        slots[slot] = (unsigned char)(i + 1);
    }
    return 0;
}

static PyMethodDef functions[] = {
    {"scan", (PyCFunction)(void (*)(void))scan, METH_FASTCALL, NULL},
    {"scan_response", (PyCFunction)(void (*)(void))scan_response, METH_FASTCALL, NULL},
    {"values", (PyCFunction)(void (*)(void))values, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)fill_tables},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "edgeproxy.proxy._scan",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__scan(void)
{
    return PyModuleDef_Init(&definition);
}

/* Forwards audio without Python in its way.
 *
 * A Lane is one direction of an interview for as long as nothing about it changes: the same SSRC,
 * the same two legs, no silence of ours in between. It repeats, statement by statement, what
 * forwarder.py, rtcp.Reception and meters.DelayMeter do then, and hands everything else to them.
 * A Reader is the event loop's callback for a socket: it gives each datagram to the lane of its
 * sender, or to Python.
 *
 * Not responsible for deciding anything: native.py and forwarder.py arm lanes and settle what they
 * counted. Everything runs on the event loop's thread, which keeps the GIL: giving it up for the
 * microseconds of a system call would let another thread have it for milliseconds.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

/* The same numbers as in udp.py and forwarder.py; test_native.py compares them. */
#define MAX_DATAGRAM 2048
#define TRAILER_ROOM 148
#define BATCH 32
#define FLOOR_DISTANCE 1024
#define CLOCK_RATE 48000
#define BUCKETS 11

typedef int (*srtp_function)(void *, void *, int *);

/* Told once by configure(): libsrtp is the one that pylibsrtp ships. */
static srtp_function srtp_unprotect;
static srtp_function srtp_protect;
static double delay_bounds[BUCKETS - 1];
static double late_seconds;

typedef struct {
    PyObject_HEAD
    char armed;
    /* What the source sends. */
    uint32_t in_ssrc;
    uint8_t in_payload_type;
    void *rx;
    /* How it leaves. */
    uint32_t out_ssrc;
    uint8_t out_payload_type;
    void *tx;
    int fd;
    struct sockaddr_storage to;
    socklen_t to_length; /* 0: the socket is connected */
    uint16_t sequence_offset;
    uint32_t timestamp_offset;
    /* Forwarder's. */
    uint16_t floor, last_sequence;
    uint32_t last_timestamp;
    double last_at;
    /* Reception's. */
    long long highest;
    double jitter, transit, heard_at;
    /* Counted since they were last settled. */
    unsigned long long packets, octets, forwarded, sent_octets;
    unsigned long long unprotect, protect, send_full, send_error;
    unsigned long long delays, late, buckets[BUCKETS];
    double delay_total, delay_largest;
    /* Where the payload goes besides: a bounded deque, or else a function. */
    PyObject *waiting, *append, *tap;
    Py_ssize_t limit;
    PyObject *irregular; /* on_rtp(size, at) */
    PyObject *keep;      /* owners of rx and tx */
} Lane;

/* What time.monotonic() reads. On macOS that stands still while the machine sleeps, and
 * CLOCK_MONOTONIC does not. */
#ifdef __APPLE__
#define MONOTONIC CLOCK_UPTIME_RAW
#else
#define MONOTONIC CLOCK_MONOTONIC
#endif

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint16_t get16(const unsigned char *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static uint32_t get32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static void put16(unsigned char *p, uint16_t value)
{
    p[0] = (unsigned char)(value >> 8);
    p[1] = (unsigned char)value;
}

static void put32(unsigned char *p, uint32_t value)
{
    put16(p, (uint16_t)(value >> 16));
    put16(p + 2, (uint16_t)value);
}

/* -- Lane ---------------------------------------------------------------------------------- */

/* rtcp.Reception.received */
static void lane_received(Lane *lane, uint16_t sequence, uint32_t timestamp, int octets, double at)
{
    double transit = at * CLOCK_RATE - timestamp;
    uint16_t step = (uint16_t)(sequence - (uint16_t)lane->highest);
    double drift = transit - lane->transit;
    if (step < 0x8000)
        lane->highest += step;
    if (drift < 0)
        drift = -drift;
    lane->transit = transit;
    if (drift < CLOCK_RATE)
        lane->jitter += (drift - lane->jitter) / 16;
    lane->packets++;
    lane->octets += (unsigned long long)octets;
    lane->heard_at = at;
}

/* The packet as a Recorder's queue takes it, or NULL. */
static PyObject *lane_copy(Lane *lane, double at, const unsigned char *buffer, int start, int octets)
{
    return Py_BuildValue("(diIy#I)", at, (int)get16(buffer + 2), get32(buffer + 4),
                         (const char *)buffer + start, (Py_ssize_t)octets, lane->in_ssrc);
}

static int lane_tap(Lane *lane, PyObject *packet)
{
    PyObject *result;
    if (lane->waiting != NULL && PyObject_Length(lane->waiting) < lane->limit)
        result = PyObject_CallOneArg(lane->append, packet);
    else if (lane->tap != NULL)
        /* A full queue counts what it refuses; its order of arguments is not the tuple's. */
        result = PyObject_CallFunctionObjArgs(lane->tap, PyTuple_GET_ITEM(packet, 0),
                                              PyTuple_GET_ITEM(packet, 4),
                                              PyTuple_GET_ITEM(packet, 1),
                                              PyTuple_GET_ITEM(packet, 2),
                                              PyTuple_GET_ITEM(packet, 3), NULL);
    else
        return 0;
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

/* meters.DelayMeter.add; received is the kernel's wall clock, 0 if it gave none. */
static void lane_delay(Lane *lane, double received)
{
    double delay;
    int bucket = 0;
    if (received == 0)
        return;
    delay = clock_seconds(CLOCK_REALTIME) - received;
    if (delay < 0) /* the wall clock was set back */
        delay = 0;
    while (bucket < BUCKETS - 1 && delay_bounds[bucket] < delay)
        bucket++;
    lane->buckets[bucket]++;
    lane->delays++;
    lane->delay_total += delay;
    if (delay > lane->delay_largest)
        lane->delay_largest = delay;
    if (delay > late_seconds)
        lane->late++;
}

/* Engine.packet, Forwarder.packet and Engine.forward for a packet as the last one was.
 * 1: done with it; 0: it is Python's, untouched; -1: an exception is set. */
static int lane_take(Lane *lane, unsigned char *buffer, int size, double received)
{
    double at;
    int length = size, start, octets, out_length, result;
    uint16_t sequence, ahead, out_sequence;
    uint32_t out_timestamp;
    unsigned char marker, *out;
    ssize_t sent;
    PyObject *packet = NULL, *keep;

    if (!lane->armed || size <= 12 || buffer[0] < 128 || buffer[0] >= 192 ||
        (buffer[1] >= 192 && buffer[1] <= 208) || get32(buffer + 8) != lane->in_ssrc)
        return 0;
    at = clock_seconds(MONOTONIC);
    if (srtp_unprotect(lane->rx, buffer, &length)) {
        lane->unprotect++;
        return 1;
    }
    start = 12 + ((buffer[0] & 0x0F) << 2);
    if (buffer[0] & 0x10)
        /* Of a header cut short what lies in the buffer behind is read: it leads beyond, too. */
        start += 4 + (get16(buffer + start + 2) << 2);
    sequence = get16(buffer + 2);
    ahead = (uint16_t)(sequence - lane->floor);
    if (start >= length || (buffer[0] & 0x20) || (buffer[1] & 0x7F) != lane->in_payload_type ||
        ahead >= 0x8000) {
        /* It may put another in its own place. */
        PyObject *take = Py_NewRef(lane->irregular != NULL ? lane->irregular : Py_None);
        PyObject *done = PyObject_CallFunction(take, "id", length, at);
        Py_DECREF(take);
        if (done == NULL)
            return -1;
        Py_DECREF(done);
        return 1;
    }
    octets = length - start;

    /* What Python code may run from here on (a tap, a finaliser) cannot free what is used. */
    keep = Py_NewRef(lane->keep != NULL ? lane->keep : Py_None);
    if (lane->waiting != NULL || lane->tap != NULL) {
        packet = lane_copy(lane, at, buffer, start, octets);
        if (packet == NULL) {
            Py_DECREF(keep);
            return -1;
        }
    }
    lane_received(lane, sequence, get32(buffer + 4), octets, at);
    if (ahead > 2 * FLOOR_DISTANCE)
        lane->floor = (uint16_t)(sequence - FLOOR_DISTANCE);
    out_sequence = (uint16_t)(sequence + lane->sequence_offset);
    out_timestamp = get32(buffer + 4) + lane->timestamp_offset;
    /* The new header ends where the payload begins, so extensions fall away without a copy. */
    marker = buffer[1] & 0x80;
    out = buffer + start - 12;
    out[0] = 0x80;
    out[1] = (unsigned char)(marker | lane->out_payload_type);
    put16(out + 2, out_sequence);
    put32(out + 4, out_timestamp);
    put32(out + 8, lane->out_ssrc);
    if ((uint16_t)(out_sequence - lane->last_sequence) < 0x8000) {
        lane->last_sequence = out_sequence;
        lane->last_timestamp = out_timestamp;
        lane->last_at = at;
    }
    out_length = octets + 12;
    if (!lane->armed) {
        /* A finaliser above closed a leg. */
    } else if (srtp_protect(lane->tx, out, &out_length)) {
        lane->protect++;
    } else {
        sent = sendto(lane->fd, out, (size_t)out_length, MSG_DONTWAIT,
                      lane->to_length ? (struct sockaddr *)&lane->to : NULL, lane->to_length);
        if (sent >= 0) {
            lane->forwarded++;
            lane->sent_octets += (unsigned long long)octets;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            lane->send_full++;
        } else {
            lane->send_error++;
        }
    }
    lane_delay(lane, received);
    result = packet != NULL ? lane_tap(lane, packet) : 0;
    Py_XDECREF(packet);
    Py_DECREF(keep);
    return result < 0 ? -1 : 1;
}

/* A socket address as sendto wants it: (host, port); an IPv6 socket writes IPv4 as mapped. */
static int read_address(PyObject *address, struct sockaddr_storage *to, socklen_t *length)
{
    const char *host;
    int port;
    struct sockaddr_in *v4 = (struct sockaddr_in *)to;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    memset(to, 0, sizeof *to);
    *length = 0;
    if (address == Py_None)
        return 0;
    if (!PyTuple_Check(address)) {
        PyErr_SetString(PyExc_TypeError, "an address is a pair or None");
        return -1;
    }
    if (!PyArg_ParseTuple(address, "si", &host, &port))
        return -1;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *length = sizeof *v4;
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *length = sizeof *v6;
    } else {
        PyErr_SetString(PyExc_ValueError, "not a numeric address");
        return -1;
    }
    return 0;
}

static PyObject *lane_arm(Lane *lane, PyObject *args, PyObject *keywords)
{
    static char *names[] = {
        "rx", "tx", "keep", "fd", "to", "in_ssrc", "in_payload_type", "out_ssrc",
        "out_payload_type", "sequence_offset", "timestamp_offset", "floor", "last_sequence",
        "last_timestamp", "last_at", "highest", "jitter", "transit", "heard_at", NULL};
    unsigned long long rx, tx;
    PyObject *keep, *to, *before;
    lane->armed = 0;
    if (srtp_protect == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "configure() was not called");
        return NULL;
    }
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "KKOiOIbIbHIHHIdLddd:arm", names, &rx, &tx, &keep, &lane->fd, &to,
            &lane->in_ssrc, &lane->in_payload_type, &lane->out_ssrc, &lane->out_payload_type,
            &lane->sequence_offset, &lane->timestamp_offset, &lane->floor, &lane->last_sequence,
            &lane->last_timestamp, &lane->last_at, &lane->highest, &lane->jitter, &lane->transit,
            &lane->heard_at))
        return NULL;
    if (rx == 0 || tx == 0 || lane->irregular == NULL || lane->irregular == Py_None) {
        PyErr_SetString(PyExc_ValueError, "a lane needs two sessions and on_rtp");
        return NULL;
    }
    if (read_address(to, &lane->to, &lane->to_length) < 0)
        return NULL;
    before = lane->keep;
    lane->keep = Py_NewRef(keep);
    lane->rx = (void *)(uintptr_t)rx;
    lane->tx = (void *)(uintptr_t)tx;
    lane->armed = 1;
    /* Last, for it may run finalisers, which may disarm. */
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyObject *lane_disarm(Lane *lane, PyObject *Py_UNUSED(nothing))
{
    lane->armed = 0;
    lane->rx = lane->tx = NULL;
    Py_CLEAR(lane->keep);
    Py_RETURN_NONE;
}

static PyObject *lane_take_payloads(Lane *lane, PyObject *args)
{
    PyObject *waiting, *tap, *append = NULL;
    Py_ssize_t limit;
    if (!PyArg_ParseTuple(args, "OnO:tap", &waiting, &limit, &tap))
        return NULL;
    if (waiting != Py_None && (append = PyObject_GetAttrString(waiting, "append")) == NULL)
        return NULL;
    lane->limit = limit;
    Py_XSETREF(lane->append, append);
    Py_XSETREF(lane->waiting, waiting == Py_None ? NULL : Py_NewRef(waiting));
    Py_XSETREF(lane->tap, tap == Py_None ? NULL : Py_NewRef(tap));
    Py_RETURN_NONE;
}

static PyObject *lane_settle(Lane *lane, PyObject *Py_UNUSED(nothing))
{
    PyObject *result, *buckets = PyTuple_New(BUCKETS);
    if (buckets == NULL)
        return NULL;
    for (int i = 0; i < BUCKETS; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(lane->buckets[i]);
        if (count == NULL) {
            Py_DECREF(buckets);
            return NULL;
        }
        PyTuple_SET_ITEM(buckets, i, count);
    }
    result = Py_BuildValue(
        "(HHIdLdddKKKKKKKKKKddN)", lane->floor, lane->last_sequence, lane->last_timestamp,
        lane->last_at, lane->highest, lane->jitter, lane->transit, lane->heard_at, lane->packets,
        lane->octets, lane->forwarded, lane->sent_octets, lane->unprotect, lane->protect,
        lane->send_full, lane->send_error, lane->delays, lane->late, lane->delay_total,
        lane->delay_largest, buckets);
    if (result == NULL)
        return NULL;
    lane->packets = lane->octets = lane->forwarded = lane->sent_octets = 0;
    lane->unprotect = lane->protect = lane->send_full = lane->send_error = 0;
    lane->delays = lane->late = 0;
    lane->delay_total = lane->delay_largest = 0;
    memset(lane->buckets, 0, sizeof lane->buckets);
    return result;
}

static int lane_traverse(Lane *lane, visitproc visit, void *arg)
{
    Py_VISIT(lane->waiting);
    Py_VISIT(lane->append);
    Py_VISIT(lane->tap);
    Py_VISIT(lane->irregular);
    Py_VISIT(lane->keep);
    return 0;
}

static int lane_clear(Lane *lane)
{
    lane->armed = 0;
    Py_CLEAR(lane->waiting);
    Py_CLEAR(lane->append);
    Py_CLEAR(lane->tap);
    Py_CLEAR(lane->irregular);
    Py_CLEAR(lane->keep);
    return 0;
}

static void lane_dealloc(Lane *lane)
{
    PyObject_GC_UnTrack(lane);
    lane_clear(lane);
    Py_TYPE(lane)->tp_free((PyObject *)lane);
}

static PyMemberDef lane_members[] = {
    {"armed", T_BOOL, offsetof(Lane, armed), READONLY, "Whether packets are forwarded here."},
    {"last_at", T_DOUBLE, offsetof(Lane, last_at), READONLY, "When (monotonic) a packet was sent."},
    {"irregular", T_OBJECT, offsetof(Lane, irregular), 0,
     "Takes (size, at) of a decrypted packet in the buffer that is unlike those before."},
    {NULL, 0, 0, 0, NULL}};

static PyMethodDef lane_methods[] = {
    {"arm", (PyCFunction)(void (*)(void))lane_arm, METH_VARARGS | METH_KEYWORDS,
     "Forward packets like the last one from now on."},
    {"disarm", (PyCFunction)lane_disarm, METH_NOARGS,
     "Leave packets to Python. What was counted stays."},
    {"tap", (PyCFunction)lane_take_payloads, METH_VARARGS,
     "Copy payloads to (deque or None, its limit, function or None)."},
    {"settle", (PyCFunction)lane_settle, METH_NOARGS,
     "Tell where the streams are, and what was counted since the last call."},
    {NULL, NULL, 0, NULL}};

static PyTypeObject LaneType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "interview_peer.media._native.Lane",
    .tp_basicsize = sizeof(Lane),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "One direction between two legs while nothing about it changes.",
    .tp_new = PyType_GenericNew,
    .tp_traverse = (traverseproc)lane_traverse,
    .tp_clear = (inquiry)lane_clear,
    .tp_dealloc = (destructor)lane_dealloc,
    .tp_members = lane_members,
    .tp_methods = lane_methods,
};

/* -- Reader -------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    int fd; /* -1: closed */
    Py_buffer buffer;
    PyObject *lanes; /* packed address: Lane */
    PyObject *peer;  /* the lane of a connected socket */
    PyObject *other; /* takes (size, address or None, received) */
} Reader;

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    Reader *reader = (Reader *)PyType_GenericNew(type, args, keywords);
    if (reader != NULL)
        reader->fd = -1;
    return (PyObject *)reader;
}

static int reader_init(Reader *reader, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *lanes, *other;
    Py_buffer buffer;
    int fd;
    if (reader->buffer.obj != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a reader is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "iw*O!O", &fd, &buffer, &PyDict_Type, &lanes, &other))
        return -1;
    if (buffer.len < MAX_DATAGRAM + TRAILER_ROOM) {
        PyBuffer_Release(&buffer);
        PyErr_SetString(PyExc_ValueError, "the buffer has no room for libsrtp's trailer");
        return -1;
    }
    reader->fd = fd;
    reader->buffer = buffer;
    Py_XSETREF(reader->lanes, Py_NewRef(lanes));
    Py_XSETREF(reader->other, Py_NewRef(other));
    return 0;
}

/* When the kernel took the datagram in (Unix seconds); 0 if it does not say. */
static double received_at(struct msghdr *message)
{
#ifdef SCM_TIMESTAMPNS
    struct cmsghdr *c;
    struct timespec t;
    for (c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
        }
#else
    (void)message;
#endif
    return 0;
}

static ssize_t read_datagram(Reader *reader, struct sockaddr_storage *from, double *received)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(struct timespec)) + 64];
    } control;
    struct iovec part = {reader->buffer.buf, MAX_DATAGRAM};
    struct msghdr message = {0};
    ssize_t size;
    message.msg_name = from;
    message.msg_namelen = sizeof *from;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    size = recvmsg(reader->fd, &message, MSG_DONTWAIT);
    if (size >= 0)
        *received = received_at(&message);
    return size;
}

/* Python's side of native.address_key. */
static Py_ssize_t pack_address(const struct sockaddr_storage *from, unsigned char *key)
{
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
        memcpy(key, &v4->sin_addr, 4);
        memcpy(key + 4, &v4->sin_port, 2);
        return 6;
    }
    if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
        memcpy(key, &v6->sin6_addr, 16);
        memcpy(key + 16, &v6->sin6_port, 2);
        return 18;
    }
    return 0;
}

static PyObject *address_object(const struct sockaddr_storage *from)
{
    char text[INET6_ADDRSTRLEN] = "";
    int port = 0;
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        port = ntohs(v4->sin_port);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        port = ntohs(v6->sin6_port);
    }
    return Py_BuildValue("(si)", text, port);
}

/* Give one datagram in the buffer to its lane or to Python; address NULL on a connected socket. */
static int deliver(Reader *reader, PyObject *lane, int size, const struct sockaddr_storage *from,
                   double received)
{
    PyObject *done, *address;
    int result = 0;
    if (lane != NULL && Py_IS_TYPE(lane, &LaneType)) {
        Py_INCREF(lane);
        result = lane_take((Lane *)lane, reader->buffer.buf, size, received);
        Py_DECREF(lane);
    }
    if (result != 0)
        return result;
    address = from != NULL ? address_object(from) : Py_NewRef(Py_None);
    if (address == NULL)
        return -1;
    done = PyObject_CallFunction(reader->other, "iNd", size, address, received);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    return 1;
}

static PyObject *reader_shared(Reader *reader, PyObject *Py_UNUSED(nothing))
{
    struct sockaddr_storage from;
    unsigned char key[18];
    double received = 0;
    for (int i = 0; i < BATCH && reader->fd >= 0; i++) {
        ssize_t size = read_datagram(reader, &from, &received);
        PyObject *packed, *lane;
        if (size < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                break;
            /* An ICMP error of an earlier send shows up here; the next read is fine. */
            if (deliver(reader, NULL, -1, NULL, 0) < 0)
                return NULL;
            continue;
        }
        packed = PyBytes_FromStringAndSize((char *)key, pack_address(&from, key));
        if (packed == NULL)
            return NULL;
        lane = PyDict_GetItemWithError(reader->lanes, packed);
        Py_DECREF(packed);
        if (lane == NULL && PyErr_Occurred())
            return NULL;
        if (deliver(reader, lane, (int)size, &from, received) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

/* One datagram a wake-up: a connected socket's packets come 20 ms apart. */
static PyObject *reader_connected(Reader *reader, PyObject *Py_UNUSED(nothing))
{
    struct sockaddr_storage from;
    double received = 0;
    ssize_t size;
    if (reader->fd < 0)
        Py_RETURN_NONE;
    size = read_datagram(reader, &from, &received);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        Py_RETURN_NONE;
    if (deliver(reader, size < 0 ? NULL : reader->peer, (int)size, NULL, received) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *reader_close(Reader *reader, PyObject *Py_UNUSED(nothing))
{
    reader->fd = -1;
    Py_CLEAR(reader->peer);
    Py_RETURN_NONE;
}

static int reader_traverse(Reader *reader, visitproc visit, void *arg)
{
    Py_VISIT(reader->lanes);
    Py_VISIT(reader->peer);
    Py_VISIT(reader->other);
    return 0;
}

static int reader_clear(Reader *reader)
{
    reader->fd = -1;
    Py_CLEAR(reader->lanes);
    Py_CLEAR(reader->peer);
    Py_CLEAR(reader->other);
    return 0;
}

static void reader_dealloc(Reader *reader)
{
    PyObject_GC_UnTrack(reader);
    reader_clear(reader);
    PyBuffer_Release(&reader->buffer);
    Py_TYPE(reader)->tp_free((PyObject *)reader);
}

static PyMemberDef reader_members[] = {
    {"peer", T_OBJECT, offsetof(Reader, peer), 0, "The lane of a connected socket's far end."},
    {NULL, 0, 0, 0, NULL}};

static PyMethodDef reader_methods[] = {
    {"shared", (PyCFunction)reader_shared, METH_NOARGS, "Read up to a batch, from anybody."},
    {"connected", (PyCFunction)reader_connected, METH_NOARGS, "Read one datagram of the peer's."},
    {"close", (PyCFunction)reader_close, METH_NOARGS, "Read nothing any more."},
    {NULL, NULL, 0, NULL}};

static PyTypeObject ReaderType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "interview_peer.media._native.Reader",
    .tp_basicsize = sizeof(Reader),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "Reads a UDP socket and forwards what lanes take.",
    .tp_new = reader_new,
    .tp_init = (initproc)reader_init,
    .tp_traverse = (traverseproc)reader_traverse,
    .tp_clear = (inquiry)reader_clear,
    .tp_dealloc = (destructor)reader_dealloc,
    .tp_members = reader_members,
    .tp_methods = reader_methods,
};

/* -- module -------------------------------------------------------------------------------- */

static PyObject *configure(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long unprotect, protect;
    double bounds[BUCKETS - 1], late;
    if (!PyArg_ParseTuple(args, "KK(dddddddddd)d:configure", &unprotect, &protect, &bounds[0],
                          &bounds[1], &bounds[2], &bounds[3], &bounds[4], &bounds[5], &bounds[6],
                          &bounds[7], &bounds[8], &bounds[9], &late))
        return NULL;
    srtp_unprotect = (srtp_function)(uintptr_t)unprotect;
    srtp_protect = (srtp_function)(uintptr_t)protect;
    memcpy(delay_bounds, bounds, sizeof bounds);
    late_seconds = late;
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"configure", configure, METH_VARARGS,
     "Tell libsrtp's addresses (unprotect, protect), the meter's bounds and what is late."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Forwards audio without Python in its way.",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&module_definition);
    if (module == NULL)
        return NULL;
    if (PyModule_AddType(module, &LaneType) < 0 || PyModule_AddType(module, &ReaderType) < 0 ||
        PyModule_AddIntConstant(module, "MAX_DATAGRAM", MAX_DATAGRAM) < 0 ||
        PyModule_AddIntConstant(module, "TRAILER_ROOM", TRAILER_ROOM) < 0 ||
        PyModule_AddIntConstant(module, "BATCH", BATCH) < 0 ||
        PyModule_AddIntConstant(module, "FLOOR_DISTANCE", FLOOR_DISTANCE) < 0 ||
        PyModule_AddIntConstant(module, "CLOCK_RATE", CLOCK_RATE) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}

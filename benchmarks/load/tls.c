#include "tls.h"
#include <openssl/err.h>
#include <openssl/ssl.h>

bool tls_on;
static SSL_CTX *context;
static bool is_server;
static const unsigned char *protocol; /* for ALPN: its length, its name */

static struct session {
    SSL *ssl;     /* NULL: none */
    bool drained; /* of what has come, all has been read that is whole */
} *sessions;

static int choose(SSL *ssl, const unsigned char **chosen, unsigned char *size, const unsigned char *offered,
                  unsigned offered_size, void *data)
{
    (void)ssl;
    (void)data;
    unsigned char *name;
    int found = SSL_select_next_proto(&name, size, protocol, protocol[0] + 1u, offered, offered_size);
    *chosen = name;
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static void prepare(const SSL_METHOD *method, bool http2)
{
    tls_on = true;
    protocol = (const unsigned char *)(http2 ? "\2h2" : "\10http/1.1");
    sessions = allocate(fd_limit, sizeof *sessions);
    context = SSL_CTX_new(method);
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION))
        die("OpenSSL does not do TLS 1.3");
    /* One recv() for all that has come, not two for each record. What waits for the socket is rendered anew, so its
     * address may change. */
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
}

void tls_prepare_client(bool http2)
{
    prepare(TLS_client_method(), http2);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_alpn_protos(context, protocol, protocol[0] + 1u);
}

void tls_prepare_server(const char *certificate, const char *key, bool http2)
{
    prepare(TLS_server_method(), http2);
    is_server = true;
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        die("--cert: not a certificate: %s", certificate);
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        die("--key: not the certificate's key: %s", key);
    SSL_CTX_set_alpn_select_cb(context, choose, NULL);
}

void tls_begin(int fd)
{
    SSL *ssl = SSL_new(context);
    if (!ssl || !SSL_set_fd(ssl, fd))
        die("out of memory");
    if (is_server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    sessions[fd] = (struct session){.ssl = ssl};
}

void tls_end(int fd)
{
    SSL_free(sessions[fd].ssl);
    sessions[fd] = (struct session){0};
}

/* True if it can go on when there is more to read, or room to write; else the queue of errors is emptied. */
static bool can_go_on(struct session *session, int result)
{
    int error = SSL_get_error(session->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return true;
    ERR_clear_error();
    return false;
}

int tls_handshake(int fd)
{
    int result = SSL_do_handshake(sessions[fd].ssl);
    if (result == 1)
        return 1;
    return can_go_on(&sessions[fd], result) ? 0 : -1;
}

ssize_t tls_read(int fd, char *p, size_t n)
{
    struct session *session = &sessions[fd];
    int got = SSL_read(session->ssl, p, (int)n);
    session->drained = got <= 0;
    if (got > 0)
        return got;
    if (!can_go_on(session, got))
        return 0;
    errno = EAGAIN;
    return -1;
}

ssize_t tls_write(int fd, const char *p, size_t n)
{
    struct session *session = &sessions[fd];
    size_t all = 0;
    while (all < n) { /* a record after another, for less than all means that the socket is full */
        int sent = SSL_write(session->ssl, p + all, (int)(n - all));
        if (sent <= 0) {
            errno = can_go_on(session, sent) ? EAGAIN : EPIPE;
            break;
        }
        all += (size_t)sent;
    }
    return all ? (ssize_t)all : -1;
}

bool tls_ready(int fd)
{
    return !tls_on || SSL_is_init_finished(sessions[fd].ssl);
}

bool tls_pending(int fd)
{
    return tls_on && sessions[fd].ssl && !sessions[fd].drained && SSL_has_pending(sessions[fd].ssl);
}

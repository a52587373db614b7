#include "wish.h"

/* A quote may end a name, or begin one: what is no name that is looked for leaves the other possibility open. */
static void on_quote(struct wish *w)
{
    bool is_stream = w->size == 6 && !memcmp(w->name, "stream", 6);
    w->is_user = w->size == 4 && !memcmp(w->name, "user", 4);
    w->state = is_stream || w->is_user ? WISH_COLON : WISH_NAME;
    w->size = 0;
}

static void on_name(struct wish *w, char byte)
{
    if (byte == '"')
        on_quote(w);
    else if (w->size < sizeof w->name)
        w->name[w->size++] = byte;
    else
        w->state = WISH_TEXT;
}

static void on_value(struct wish *w, char byte)
{
    w->size = 1;
    w->reader = w->is_user ? 0 : w->reader;
    if (w->is_user)
        w->state = byte == '"' ? WISH_READER : WISH_TEXT;
    else
        w->state = byte == 't' ? WISH_TRUE : WISH_TEXT;
}

static void on_true(struct wish *w, char byte)
{
    w->state = byte == "true"[w->size++] ? WISH_TRUE : WISH_TEXT;
    if (w->state == WISH_TRUE && w->size == 4) {
        w->stream = true;
        w->state = WISH_TEXT;
    }
}

/* size: 1 before the r, then 2 and more. */
static void on_reader(struct wish *w, char byte)
{
    if (w->size == 1 && byte == 'r') {
        w->size = 2;
    } else if (w->size > 1 && w->size < 12 && byte >= '0' && byte <= '9') {
        w->reader = w->reader * 10 + (uint32_t)(byte - '0');
        w->size++;
    } else {
        w->has_reader |= w->size > 2 && byte == '"';
        w->state = WISH_TEXT;
    }
}

void wish_take(struct wish *w, const char *p, size_t n)
{
    for (const char *end = p + n; p < end; p++) {
        switch (w->state) {
        case WISH_TEXT:
            p = memchr(p, '"', (size_t)(end - p));
            if (!p)
                return;
            w->state = WISH_NAME;
            w->size = 0;
            break;
        case WISH_NAME:
            on_name(w, *p);
            break;
        case WISH_COLON:
        case WISH_VALUE:
            if (*p == ' ')
                break;
            if (w->state == WISH_VALUE)
                on_value(w, *p);
            else
                w->state = *p == ':' ? WISH_VALUE : WISH_TEXT;
            break;
        case WISH_TRUE:
            on_true(w, *p);
            break;
        case WISH_READER:
            on_reader(w, *p);
            break;
        }
    }
}

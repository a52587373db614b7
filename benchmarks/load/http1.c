#include "http1.h"

enum { HEAD_MAX = 32768 };

void stash_free(struct stash *stash)
{
    free(stash->bytes);
    *stash = (struct stash){NULL, 0};
}

ssize_t head_take(struct stash *stash, const char *p, size_t n, const char **head, size_t *size)
{
    const char *end;
    *head = NULL;
    if (!stash->bytes) {
        end = memmem(p, n, "\r\n\r\n", 4);
        if (end) {
            *head = p;
            *size = (size_t)(end - p) + 4;
            return (ssize_t)*size;
        }
        stash->bytes = allocate(1, HEAD_MAX);
    }
    size_t before = stash->used, add = n < HEAD_MAX - before ? n : HEAD_MAX - before;
    memcpy(stash->bytes + before, p, add);
    stash->used += add;
    size_t from = before < 3 ? 0 : before - 3; /* the end may straddle two reads */
    end = memmem(stash->bytes + from, stash->used - from, "\r\n\r\n", 4);
    if (!end)
        return stash->used == HEAD_MAX ? -1 : (ssize_t)add;
    *head = stash->bytes;
    *size = (size_t)(end - stash->bytes) + 4;
    return (ssize_t)(*size - before);
}

bool head_text(const char *head, size_t size, const char *name, char *value, size_t room)
{
    size_t name_size = strlen(name);
    const char *end = head + size, *line = memchr(head, '\n', size);
    while (line && ++line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        size_t length = next ? (size_t)(next - line) : 0;
        if (length > name_size && line[name_size] == ':' && !strncasecmp(line, name, name_size)) {
            const char *from = line + name_size + 1;
            size_t used = 0;
            for (; from < next && used < room - 1; from++)
                if (*from != ' ' && *from != '\t' && *from != '\r')
                    value[used++] = *from;
            value[used] = 0;
            return true;
        }
        line = next;
    }
    return false;
}

bool head_field(const char *head, size_t size, const char *name, char value[64])
{
    if (!head_text(head, size, name, value, 64))
        return false;
    for (char *p = value; *p; p++)
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p | 32) : *p;
    return true;
}

static int hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 32;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

ssize_t chunked_take(struct chunked *coding, const char *p, size_t n, const char **data, size_t *size)
{
    size_t i = 0;
    *size = 0;
    while (i < n && coding->state != CHUNK_END) {
        if (coding->state == CHUNK_DATA) {
            *data = p + i;
            *size = n - i < coding->left ? n - i : (size_t)coding->left;
            coding->left -= *size;
            if (!coding->left)
                coding->state = CHUNK_DATA_CR;
            return (ssize_t)(i + *size);
        }
        char byte = p[i++];
        int digit = hex_digit(byte);
        switch (coding->state) {
        case CHUNK_SIZE:
            if (digit >= 0 && coding->digits++ < 8)
                coding->left = coding->left * 16 + (unsigned)digit;
            else if (coding->digits && coding->digits <= 8 && (byte == '\r' || byte == ';' || byte == ' '))
                coding->state = byte == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
            else
                return -1;
            break;
        case CHUNK_EXTENSION:
            if (byte == '\r')
                coding->state = CHUNK_SIZE_LF;
            break;
        case CHUNK_SIZE_LF:
            if (byte != '\n')
                return -1;
            coding->digits = 0;
            coding->state = coding->left ? CHUNK_DATA : CHUNK_TRAILER;
            break;
        case CHUNK_DATA_CR:
            if (byte != '\r')
                return -1;
            coding->state = CHUNK_DATA_LF;
            break;
        case CHUNK_DATA_LF:
            if (byte != '\n')
                return -1;
            coding->state = CHUNK_SIZE;
            break;
        case CHUNK_TRAILER:
            coding->state = byte == '\r' ? CHUNK_END_LF : CHUNK_TRAILER_LINE;
            break;
        case CHUNK_TRAILER_LINE:
            if (byte == '\n')
                coding->state = CHUNK_TRAILER;
            break;
        case CHUNK_END_LF:
            if (byte != '\n')
                return -1;
            coding->state = CHUNK_END;
            break;
        default:
            break;
        }
    }
    return (ssize_t)i;
}

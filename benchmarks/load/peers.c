#include "peers.h"
#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

enum { ESTABLISHED = 1 };

static int diagnosis = -1;

struct question {
    struct nlmsghdr head;
    struct inet_diag_req_v2 body;
};

/* Sends the kernel a question for the socket between these two addresses. */
static bool ask_kernel(const struct sockaddr_in *own, const struct sockaddr_in *peer)
{
    struct question question = {
        .head = {.nlmsg_len = sizeof question, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST},
        .body = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = UINT32_MAX},
    };
    struct inet_diag_sockid *id = &question.body.id;
    id->idiag_sport = peer->sin_port;
    id->idiag_dport = own->sin_port;
    id->idiag_src[0] = peer->sin_addr.s_addr;
    id->idiag_dst[0] = own->sin_addr.s_addr;
    id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    return send(diagnosis, &question, sizeof question, 0) == (ssize_t)sizeof question;
}

enum peer_state peer_state(int fd)
{
    struct sockaddr_in own, peer;
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
    union {
        struct nlmsghdr head;
        char bytes[4096];
    } reply;
    if (diagnosis < 0)
        diagnosis = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (getsockname(fd, (struct sockaddr *)&own, &own_size) || getpeername(fd, (struct sockaddr *)&peer, &peer_size) ||
        !ask_kernel(&own, &peer) || recv(diagnosis, &reply, sizeof reply, 0) < (ssize_t)sizeof reply.head)
        return PEER_UNKNOWN;
    if (reply.head.nlmsg_type == SOCK_DIAG_BY_FAMILY) {
        const struct inet_diag_msg *found = NLMSG_DATA(&reply.head);
        return found->idiag_state == ESTABLISHED ? PEER_OPEN : PEER_CLOSED;
    }
    const struct nlmsgerr *error = NLMSG_DATA(&reply.head);
    return reply.head.nlmsg_type == NLMSG_ERROR && error->error == -ENOENT ? PEER_CLOSED : PEER_UNKNOWN;
}

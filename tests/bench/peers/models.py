"""The tables of the feed in Django."""

from django.db import models


class Account(models.Model):
    """Who posts and reads."""

    username = models.CharField(max_length=30, unique=True)
    display_name = models.CharField(max_length=100)

    class Meta:
        app_label = "peers"


class Token(models.Model):
    """A log-in."""

    key = models.CharField(max_length=100, primary_key=True)
    account = models.ForeignKey(Account, on_delete=models.CASCADE)

    class Meta:
        app_label = "peers"


class Follow(models.Model):
    """Who follows whom."""

    follower = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="following")
    followee = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="followers")

    class Meta:
        app_label = "peers"
        constraints = [models.UniqueConstraint(fields=["follower", "followee"], name="peers_follow_once")]


class Post(models.Model):
    """A post."""

    author = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="posts")
    caption = models.TextField()
    published_at = models.DateTimeField()

    class Meta:
        app_label = "peers"
        indexes = [models.Index(fields=["author", "-id"], name="peers_post_author")]


class Photo(models.Model):
    """A photo of a post."""

    post = models.ForeignKey(Post, on_delete=models.CASCADE, related_name="photos")
    blurhash = models.CharField(max_length=40)
    width = models.IntegerField()
    height = models.IntegerField()
    renditions = models.JSONField()

    class Meta:
        app_label = "peers"

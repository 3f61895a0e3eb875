"""Networks of PyTorch, small or of full size, written after their papers and torchvision: what users export with torch.onnx."""

import torch
from torch import nn
from torch.nn import functional as tf


class LeNet(nn.Module):
    """LeCun, Bottou, Bengio and Haffner (1998), with view() as many tutorials flatten."""

    def __init__(self, width=6, classes=10):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, width, 5, padding=2), nn.Conv2d(width, 2 * width, 5)
        self.fc1, self.fc2 = nn.Linear(2 * width * 25, 5 * width), nn.Linear(5 * width, classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = tf.max_pool2d(torch.tanh(self.conv1(x)), 2)
        x = tf.avg_pool2d(torch.relu(self.conv2(x)), 2)
        x = x.view(x.size(0), -1)
        return torch.softmax(self.fc2(self.dropout(torch.sigmoid(self.fc1(x)))), dim=1)


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """He, Zhang, Ren and Sun (2015); width 64 and two blocks a stage are ResNet-18."""

    def __init__(self, width=64, blocks=2, classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        stages, inputs = [], width
        for stage in range(4):
            outputs = width << stage
            layers = [BasicBlock(inputs if i == 0 else outputs, outputs, 2 if stage and i == 0 else 1) for i in range(blocks)]
            stages.append(nn.Sequential(*layers))
            inputs = outputs
        self.layers = nn.Sequential(*stages)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.layers(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def conv_bn(inputs, outputs, size=3, stride=1, groups=1, activation=nn.ReLU6):
    layers = [nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expand):
        super().__init__()
        hidden = inputs * expand
        self.shortcut = stride == 1 and inputs == outputs
        first = [] if expand == 1 else [conv_bn(inputs, hidden, 1)]
        self.conv = nn.Sequential(*first, conv_bn(hidden, hidden, 3, stride, hidden), conv_bn(hidden, outputs, 1, activation=None))

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler and others (2018); width 1 and these settings are the paper's."""

    SETTINGS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]

    def __init__(self, width=1.0, settings=None, last=1280, classes=1000):
        super().__init__()
        channels = int(32 * width)
        layers = [conv_bn(3, channels, 3, 2)]
        for expand, outputs, count, stride in settings or self.SETTINGS:
            outputs = int(outputs * width)
            for i in range(count):
                layers.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expand))
                channels = outputs
        self.features = nn.Sequential(*layers, conv_bn(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x):
        return self.classifier(tf.adaptive_avg_pool2d(self.features(x), (1, 1)).reshape(x.shape[0], -1))


class Gate(nn.Module):
    """Squeeze and excitation as in MobileNetV3 (Howard and others 2019)."""

    def __init__(self, channels):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        return x * tf.hardsigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class MobileNetV3(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn(3, 8, 3, 2, activation=nn.Hardswish), conv_bn(8, 8, 5, groups=8, activation=nn.Hardswish), Gate(8), nn.SiLU(), nn.Mish()
        )
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.layers(x).mean((2, 3)))


class ConvNeXt(nn.Module):
    """A block of Liu and others (2022): a layer norm and dense layers on the channels, which are last meanwhile."""

    def __init__(self, channels=6, approximate="none"):
        super().__init__()
        self.stem, self.dwconv = nn.Conv2d(3, channels, 2, 2), nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm, self.act = nn.LayerNorm(channels, eps=1e-6), nn.GELU(approximate)
        self.pwconv1, self.pwconv2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.5))
        self.group, self.head = nn.GroupNorm(2, channels), nn.Linear(channels, 4)

    def forward(self, x):
        x = self.stem(x)
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(self.norm(y))))
        x = self.group(x + y.permute(0, 3, 1, 2))
        return torch.log_softmax(self.head(x.mean([-2, -1])), dim=-1)


class UNet(nn.Module):
    """Ronneberger, Fischer and Brox (2015): branches that are joined by their channels, up by transposed convolutions and by pixels."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = conv_bn(1, 4), conv_bn(4, 8), conv_bn(8, 8)
        self.up2, self.conv2 = nn.ConvTranspose2d(8, 8, 3, 2, 1, 1), conv_bn(16, 8)
        self.up1, self.conv1 = nn.Upsample(scale_factor=2, mode="bilinear"), conv_bn(12, 4)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(tf.max_pool2d(a, 2))
        y = self.up2(self.bottom(tf.max_pool2d(b, 2)))
        y = self.up1(self.conv2(torch.cat([b, y], 1)))
        return torch.sigmoid(self.last(self.conv1(torch.cat([a, y], 1))))


class Inception(nn.Module):
    """Branches of four kinds (Szegedy and others 2014), odd padding, activations with numbers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 2, 1), nn.Sequential(nn.ReflectionPad2d((1, 0, 2, 1)), nn.Conv2d(3, 3, (4, 2)), nn.ELU(0.5))
        self.c = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(3, 2, 1), nn.LeakyReLU(0.2), nn.BatchNorm2d(2))
        self.d = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, 2, 3, padding=2, dilation=2), nn.PReLU(2), nn.Softplus(2.0))
        self.pool = nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
        self.fc = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(81), nn.Linear(81, 7, bias=False), nn.SELU(), nn.Linear(7, 3), nn.LogSigmoid())

    def forward(self, x):
        return self.fc(self.pool(torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], 1)))


class Keyword(nn.Module):
    """Sequences (N, C, L)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn, self.conv2 = nn.Conv1d(4, 6, 5, padding=2), nn.BatchNorm1d(6), nn.Conv1d(6, 6, 3, 2, groups=3)
        self.norm, self.fc = nn.InstanceNorm1d(6, affine=True), nn.Linear(6, 3)

    def forward(self, x):
        x = tf.max_pool1d(tf.celu(self.bn(self.conv1(x))), 2)
        x = tf.hardtanh(self.norm(self.conv2(x)), -2.0, 1.5)
        return self.fc(tf.adaptive_avg_pool1d(x, 1).squeeze(-1))


class TwoOutputs(nn.Module):
    """Normalised inside, by buffers; a class and a mask."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1))
        self.trunk, self.mask, self.fc = conv_bn(3, 4), nn.Conv2d(4, 1, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.trunk((x - self.mean) / self.std)
        return self.fc(x.mean((2, 3))), self.mask(x)


TINY = {  # networks, and the shapes of one example, NCHW
    "lenet": (lambda: LeNet(2), (1, 28, 28)),
    "resnet18": (lambda: ResNet18(2, 2, 5), (3, 32, 32)),
    "mobilenetv2": (lambda: MobileNetV2(0.125, [(1, 16, 1, 1), (3, 24, 2, 2), (3, 32, 2, 2)], 16, 5), (3, 24, 24)),
    "mobilenetv3": (MobileNetV3, (3, 12, 12)),
    "convnext": (ConvNeXt, (3, 8, 8)),
    "convnext-tanh": (lambda: ConvNeXt(4, "tanh"), (3, 8, 8)),
    "unet": (UNet, (1, 12, 8)),
    "inception": (Inception, (3, 5, 5)),
    "keyword": (Keyword, (4, 19)),
    "two-outputs": (TwoOutputs, (3, 6, 6)),
}
FULL = {"lenet": (LeNet, (1, 28, 28)), "resnet18": (ResNet18, (3, 96, 96)), "mobilenetv2": (MobileNetV2, (3, 96, 96))}


def trained(make, shape, seed=0):
    """A network whose statistics are not those it starts with, an input and the outputs for it."""
    torch.manual_seed(seed)
    network = make()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    network.train()
    with torch.no_grad():
        network(torch.rand(16, *shape))
        network.eval()
        x = torch.rand(3, *shape)
        y = network(x)
    return network, x, y if isinstance(y, tuple) else (y,)


def exported(network, x, path, dynamo=False, opset=18, dynamic=True):
    """Write the file, for any batch size."""
    options = {"input_names": ["input"], "opset_version": opset, "dynamo": dynamo}
    if dynamic and dynamo:
        options["dynamic_shapes"] = ({0: torch.export.Dim.DYNAMIC},)
    elif dynamic:
        options["dynamic_axes"] = {"input": {0: "N"}}
    if dynamo:
        options |= {"external_data": False, "verbose": False}
    torch.onnx.export(network, (x[:2],), str(path), **options)
